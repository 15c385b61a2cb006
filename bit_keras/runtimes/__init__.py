"""Programs that run exported files: images in, named arrays out, whoever wrote the file."""

from bit_keras.runtimes.opening import is_installed as is_installed
from bit_keras.runtimes.opening import kind_of as kind_of
from bit_keras.runtimes.opening import open_program as open_program
from bit_keras.runtimes.program import Program as Program
from bit_keras.runtimes.program import Signature as Signature
