"""Arrays in files of every format: how they are stored, not what they mean."""

from bit_keras.checkpoints.files.array_file import ArrayFile as ArrayFile
from bit_keras.checkpoints.files.array_file import ArrayFileView as ArrayFileView
from bit_keras.checkpoints.files.array_file import Arrays as Arrays
from bit_keras.checkpoints.files.array_file import damage_explained as damage_explained
from bit_keras.checkpoints.files.array_file import require_file as require_file
from bit_keras.checkpoints.files.array_file import require_finite as require_finite
from bit_keras.checkpoints.files.hdf5 import Hdf5File as Hdf5File
from bit_keras.checkpoints.files.hdf5 import is_hdf5 as is_hdf5
from bit_keras.checkpoints.files.keras_file import KerasArchive as KerasArchive
from bit_keras.checkpoints.files.keras_file import KerasFile as KerasFile
from bit_keras.checkpoints.files.keras_file import is_keras_file as is_keras_file
from bit_keras.checkpoints.files.keras_file import write_keras as write_keras
from bit_keras.checkpoints.files.npz import NpzFile as NpzFile
from bit_keras.checkpoints.files.npz import write_npz as write_npz
from bit_keras.checkpoints.files.safetensors import SafetensorsFile as SafetensorsFile
from bit_keras.checkpoints.files.safetensors import is_safetensors as is_safetensors
from bit_keras.checkpoints.files.safetensors import write_safetensors as write_safetensors
from bit_keras.checkpoints.files.saved_model import SavedModelFile as SavedModelFile
from bit_keras.checkpoints.files.saved_model import is_saved_model as is_saved_model
from bit_keras.checkpoints.files.torch_file import TorchFile as TorchFile
from bit_keras.checkpoints.files.torch_file import is_torch_file as is_torch_file
