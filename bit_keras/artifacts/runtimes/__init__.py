"""Programs that run exported files: images in, named arrays out, whoever wrote the file."""

from bit_keras.artifacts.runtimes.opening import open_program as open_program
from bit_keras.artifacts.runtimes.program import Program as Program
