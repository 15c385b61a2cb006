"""Real images for tests: the photographs where they are, the sample images elsewhere."""

import pytest

from tests.cifar10 import ROOT, SAMPLES

PHOTOS = ROOT.parent / "shared" / "data" / "photos"

needs_photos = pytest.mark.skipif(
    not PHOTOS.is_dir(), reason="The photographs are not part of the repository."
)


def photo_files():
    """Paths of the photographs, 64 of them, or of the ten samples."""
    return sorted(PHOTOS.glob("*.JPEG")) or sorted(SAMPLES.glob("*.jpg"))
