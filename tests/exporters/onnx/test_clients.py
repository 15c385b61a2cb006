"""Programs that this project did not write read every form of ONNX and OpenVINO files."""

import numpy as np
import pytest

from bit_keras.models import create_classifier
from bit_keras.preprocessing import eval_transform
from tests.cifar10 import SAMPLES
from tests.exporters.onnx import client, forms

pytestmark = pytest.mark.slow

onnx = pytest.importorskip("onnx", reason="onnx is not installed")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A function that writes a form of the trained network, once, and returns the file."""
    model = create_classifier("bit_tiny.cifar10")
    transform = eval_transform("bit_tiny.cifar10")
    samples = [transform(path.read_bytes()) for path in sorted(SAMPLES.glob("*.jpg"))]
    files = {}

    def write(form):
        if form not in files:
            folder = tmp_path_factory.mktemp("form")
            files[form] = forms.write(model, form, folder, samples)
        return files[form]

    return write


ONNX_FORMS = [form for form in forms.FORMS if form.startswith("onnx")]


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_onnx_runtime_returns_what_keras_does(written, form, client_record):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    path = written(form)
    found = forms.difference(path, client.onnxruntime(str(path), forms.inputs_of(path)))
    forms.require_close(form, found)
    client_record("ONNX Runtime", onnxruntime.__version__, form, found)


@pytest.mark.parametrize("form", forms.FORMS)
def test_openvino_returns_what_keras_does(written, form, client_record):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    path = written(form)
    found = forms.difference(path, client.openvino(str(path), forms.inputs_of(path)))
    forms.require_close(form, found)
    client_record("OpenVINO", openvino.__version__.partition("-")[0], form, found)


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_opencv_returns_what_keras_does(written, form, client_record):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path = written(form)
    fixed = "--batch" in form
    if cv2.__version__.startswith("4.") and not fixed:
        pytest.skip(f"OpenCV {cv2.__version__} reads no open shapes.")
    images = forms.inputs_of(path)
    if not fixed:  # It keeps the number of images of the first call.
        images = {name: array[:1] for name, array in images.items()}
    found = forms.difference(path, client.cv2(str(path), images))
    forms.require_close(form, found, "cv2")
    client_record("OpenCV", cv2.__version__, form, found)


@pytest.mark.parametrize("form", ONNX_FORMS)
def test_shapes_and_types_follow_from_the_file(written, form):
    # What viewers and converters do first.
    model = onnx.load(written(form))
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    )
    known = {value.name for value in (*inferred.graph.value_info, *inferred.graph.output)}
    assert {name for node in model.graph.node for name in node.output} <= known


CONVERTERS = {
    # pip install onnxconverter-common onnxslim onnxsim
    "onnxconverter_common": lambda module, model: module.convert_float_to_float16(
        model, keep_io_types=True
    ),
    "onnxslim": lambda module, model: module.slim(model),
    "onnxsim": lambda module, model: module.simplify(model)[0],
}


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["onnx", forms.FIXED])
@pytest.mark.parametrize("package", CONVERTERS)
def test_converters_keep_what_it_returns(written, form, package, tmp_path, client_record):
    """`pip install onnxconverter-common onnxslim onnxsim` brings them."""
    module = pytest.importorskip(package, reason=f"{package} is not installed")
    version = module.__version__.removeprefix("v")
    if package == "onnxconverter_common":
        module = pytest.importorskip("onnxconverter_common.float16")
    path = written(form)
    converted = CONVERTERS[package](module, onnx.load(path))
    onnx.save(converted, tmp_path / "converted.onnx")
    outputs = client.onnxruntime(str(tmp_path / "converted.onnx"), forms.inputs_of(path))
    found = forms.difference(path, outputs)
    half = package == "onnxconverter_common"
    if half:
        weights = {tensor.data_type for tensor in converted.graph.initializer}
        assert onnx.TensorProto.FLOAT16 in weights
        assert (tmp_path / "converted.onnx").stat().st_size < 0.6 * path.stat().st_size
    forms.require_close(f"{form} --quantize float16" if half else form, found)
    client_record(package, version, form, found)


def test_opencv_feeds_a_batch_of_images_with_channels_first(tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    from bit_keras.exporters.onnx import export_onnx

    model = create_classifier("bit_tiny.cifar10")
    export_onnx(model, tmp_path / "a.onnx", size=64, batch=3, layout="nchw")
    paths = sorted(SAMPLES.glob("*.jpg"))[:3]
    photos = [cv2.resize(cv2.imread(str(path)), (64, 64)) for path in paths]
    # What OpenCV has for it: [0, 255] to [-1, 1], BGR to RGB, channels first.
    blob = cv2.dnn.blobFromImages(photos, 1 / 127.5, mean=(127.5,) * 3, swapRB=True)
    network = cv2.dnn.readNetFromONNX(str(tmp_path / "a.onnx"))
    network.setInput(blob, "inputs_nchw")
    logits = network.forward("logits")
    images = np.stack([photo[..., ::-1] for photo in photos]).astype("float32") / 127.5 - 1
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
