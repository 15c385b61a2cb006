"""Programs that run exported files: images in, named arrays out, whoever wrote the file."""

from bit_keras.artifacts.runtimes.opening import format_of as format_of
from bit_keras.artifacts.runtimes.opening import is_installed as is_installed
from bit_keras.artifacts.runtimes.opening import open_program as open_program
from bit_keras.artifacts.runtimes.program import Program as Program
from bit_keras.artifacts.runtimes.program import Signature as Signature
