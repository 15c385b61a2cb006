"""The four models of the collection at full size, in both variants, from official-layout files."""

import pytest

from bit_keras.checkpoints import SeededArrays, official_shapes, write_npz
from bit_keras.export.hub import export_hub
from bit_keras.export.verify import verify
from bit_keras.models import create_classifier, create_feature_extractor
from bit_keras.registry import ARCHITECTURES

pytestmark = pytest.mark.long

#: The weights are drawn, not published; the size of the file is that of the published one
#: (timm's earlier model page), which says that no array is missing or misnamed.
BYTES = {"bit_r50x1": 102_242_668, "bit_r152x2": 945_476_668}


@pytest.fixture(scope="module", params=BYTES)
def weights(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.npz"
    write_npz(path, SeededArrays(official_shapes(ARCHITECTURES[request.param], 1000)))
    assert path.stat().st_size == BYTES[request.param]
    yield path
    path.unlink()


@pytest.mark.parametrize("size", ["smaller", "larger"])
@pytest.mark.parametrize("build", [create_classifier, create_feature_extractor])
def test_collection_model_is_exported_and_verified(weights, build, size, tmp_path):
    name = {
        ("bit_r50x1", "smaller"): "bit_r50x1.distilled_in1k_160",
        ("bit_r50x1", "larger"): "bit_r50x1.distilled_in1k_224",
        ("bit_r152x2", "smaller"): "bit_r152x2.teacher_in1k_224",
        ("bit_r152x2", "larger"): "bit_r152x2.teacher_in1k_384",
    }[weights.stem, size]
    artifact = tmp_path / name
    export_hub(build(name, weights=weights), artifact)
    verification = verify(artifact)
    assert verification.passed, verification.differences
    (artifact / "variables" / "variables.data-00000-of-00001").unlink()  # A gigabyte.
