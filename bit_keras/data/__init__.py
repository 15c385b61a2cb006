"""Labelled images from folders, archives, TensorFlow Datasets or arrays, and batches of them."""

from bit_keras.data.datasets import image_dataset as image_dataset
from bit_keras.data.datasets import open_images as open_images
from bit_keras.data.images import Images as Images
