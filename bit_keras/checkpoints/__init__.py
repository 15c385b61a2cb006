"""Read and write checkpoints, strictly, and fetch the published ones."""

from bit_keras.checkpoints.download import pretrained_path as pretrained_path
from bit_keras.checkpoints.names import official_shapes as official_shapes
from bit_keras.checkpoints.npz import NpzCheckpoint as NpzCheckpoint
from bit_keras.checkpoints.npz import write_npz as write_npz
from bit_keras.checkpoints.seeded import SeededArrays as SeededArrays
from bit_keras.checkpoints.seeded import fill_with_seeded_values as fill_with_seeded_values
from bit_keras.checkpoints.transfer import load_weights as load_weights
from bit_keras.checkpoints.transfer import require_known as require_known
from bit_keras.checkpoints.transfer import save_weights as save_weights
from bit_keras.checkpoints.transfer import take_arrays as take_arrays
