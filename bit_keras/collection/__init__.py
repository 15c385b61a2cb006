"""Collections of artifacts: recipe in, SavedModels, archives, pages and a manifest out."""

from bit_keras.collection.builder import build_collection as build_collection
from bit_keras.collection.manifest import Manifest as Manifest
from bit_keras.collection.manifest import verify_collection as verify_collection
from bit_keras.collection.recipe import Recipe as Recipe
