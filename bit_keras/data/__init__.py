"""Labelled images from folders, archives, TensorFlow Datasets or arrays, and batches of them."""

from bit_keras.data.datasets import image_dataset as image_dataset
from bit_keras.data.images import Images as Images
from bit_keras.data.images import hold_out as hold_out
from bit_keras.data.pipeline import eval_pipeline as eval_pipeline
from bit_keras.data.pipeline import mixup as mixup
from bit_keras.data.pipeline import require_readable as require_readable
from bit_keras.data.pipeline import train_pipeline as train_pipeline
from bit_keras.data.sources import open_images as open_images
from bit_keras.data.sources import splits_of as splits_of
