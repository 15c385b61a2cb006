"""The table of targets: what Python, the command line and the documentation read."""

import inspect
import pkgutil
from pathlib import Path

import pytest

import bit_keras
from bit_keras.artifacts import Artifact, metadata
from bit_keras.errors import ExportError
from bit_keras.exporters.targets import (
    COMMON_OPTIONS,
    TARGETS,
    TRITON_WRITER,
    artifact_path,
    check_options,
    in_python,
    on_command_line,
)

#: Options that `bit_keras.export` turns into something else for the writer of a target.
OF_EXPORT = {"class_maps", "layout", "version"}


def test_the_table_has_every_target_that_artifacts_name():
    assert tuple(TARGETS) == metadata.TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_writers_take_the_options_of_the_table(target):
    taken = set(inspect.signature(pkgutil.resolve_name(TARGETS[target].writer)).parameters)
    options = {*TARGETS[target].options, *COMMON_OPTIONS}
    assert options - OF_EXPORT <= taken
    assert taken - {"model", "path"} <= options


def test_triton_is_a_layout_with_a_writer_of_its_own():
    taken = inspect.signature(pkgutil.resolve_name(TRITON_WRITER)).parameters
    assert {"model", "path", "target", "version"} <= set(taken)


@pytest.mark.parametrize(
    ("target", "options", "facts"),
    [
        ("coreml", {}, ["hub", "serving", "tflite", "onnx", "openvino", "keras", "coreml"]),
        ("hub", {"colour": "red"}, ["input_range", "max_pixels", "spec", "colour"]),
        ("serving", {"quantize": "int8"}, ["{quantize}", "tflite", "onnx", "openvino"]),
        ("serving", {"layout": "nchw"}, ["{layout}", "triton", "nchw"]),
        ("serving", {"precision": "float16"}, ["float32", "bfloat16", "float16"]),
        ("serving", {"layout": "triton", "batch_sizes": (1,)}, ["{batch_sizes}", "config.pbtxt"]),
        ("serving", {"batch_sizes": (2, 0)}, ["{batch_sizes}", "1 or more", "0"]),
        ("serving", {"version": 0}, ["{version}", "1 or more", "0"]),
        ("serving", {"default_signature": "b64"}, ["inputs", "image_bytes", "b64"]),
        ("serving", {"max_pixels": -1}, ["{max_pixels}", "1 or more", "-1"]),
        ("serving", {"max_pixels": 1.5}, ["{max_pixels}", "integer", "1.5"]),
        ("serving", {"max_pixels": "many"}, ["{max_pixels}", "integer", "many"]),
        ("hub", {"max_pixels": 5}, ["{max_pixels}", "{folded}"]),
        ("hub", {"input_range": (0, 255)}, ["{input_range}", "-1,1", "0,1", "255"]),
        ("onnx", {"version": 2}, ["{version}", "{layout}", "triton"]),
        ("onnx", {"size": "dynamic"}, ["{size}", "dynamic", "tflite"]),
        ("onnx", {"quantize": "dynamic"}, ["none", "float16", "int8", "dynamic"]),
        ("onnx", {"opset": 12, "quantize": "int8", "calibration": "x"}, ["13 to 23", "12"]),
        ("onnx", {"batch": 0}, ["{batch}", "1 to 1024", "0"]),
        ("onnx", {"calibration": "x"}, ["{calibration}", "{quantize}", "int8"]),
        ("tflite", {"quantize": "int8"}, ["{quantize}", "{calibration}"]),
        (
            "tflite",
            {"quantize": "int8", "calibration": "x", "class_maps": True},
            ["{class_maps}", "{quantize}", "none", "float16", "dynamic"],
        ),
        (
            "tflite",
            {"quantize": "int8-pure", "calibration": "x", "input_range": (0, 1)},
            ["{input_range}", "{quantize}", "none", "float16", "dynamic"],
        ),
        ("keras", {"class_maps": True}, ["{class_maps}", "hub", "create_class_maps"]),
    ],
)
def test_what_does_not_go_together_is_named_in_the_words_of_the_caller(target, options, facts):
    for spelled in (in_python, on_command_line):
        with pytest.raises(ExportError) as raised:
            check_options(target, "classification", options, spelled)
        for fact in facts:
            name = fact.strip("{}")
            assert (spelled(name) if name != fact else fact) in str(raised.value)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("hub", {"folded": True, "max_pixels": 5, "class_maps": True, "input_range": (0, 1)}),
        ("serving", {"quantize": None, "folded": False, "batch_sizes": ()}),
        ("serving", {"layout": "triton", "version": 3, "precision": "bfloat16"}),
        ("tflite", {"size": "dynamic", "quantize": "float16", "class_maps": True}),
        ("tflite", {"quantize": "int8", "calibration": "x", "input_range": (-1.0, 1.0)}),
        ("onnx", {"layout": "triton", "version": 2, "batch": 1, "opset": 11}),
        ("keras", {"spec": object(), "allow_nonfinite": True}),
    ],
)
def test_what_goes_together_is_taken(target, options):
    check_options(target, "classification", options)


def test_class_maps_need_a_head():
    check_options("hub", "classification", {"class_maps": True})
    with pytest.raises(ExportError, match="--variant classification"):
        check_options("hub", "feature_extraction", {"class_maps": True}, on_command_line)


def test_options_are_written_as_their_caller_writes_them():
    assert in_python("quantize", "int8", "int8-pure") == "quantize='int8' or 'int8-pure'"
    assert on_command_line("quantize", "int8", "int8-pure") == "--quantize int8 or int8-pure"
    assert on_command_line("input_range", (0.0, 1.0)) == "--input-range 0,1"
    assert on_command_line("folded", True) == on_command_line("folded") == "--folded"


def test_servers_keep_versions_in_a_folder(tmp_path):
    assert artifact_path(tmp_path, "hub", {}) == tmp_path
    assert artifact_path(tmp_path, "serving", {}) == tmp_path / "1"
    assert artifact_path(tmp_path, "onnx", {"layout": "triton", "version": 3}) == tmp_path / "3"


def test_one_function_writes_every_target(classifier, tmp_path):
    written = bit_keras.export(classifier, tmp_path / "a.keras", "keras", spec=None)
    assert written == Artifact(tmp_path / "a.keras").metadata
    with pytest.raises(ExportError, match="coreml"):
        bit_keras.export(classifier, tmp_path / "a", "coreml")


def table():
    """The table of the documentation."""
    yield "| target | writes | options |"
    yield "|---|---|---|"
    for name, target in TARGETS.items():
        options = [
            f"`{option}`" + (f" ({', '.join(map(shown, values))})" if values else "")
            for option, values in target.options.items()
        ]
        yield f"| `{name}` | {target.writes} | {', '.join(options) or 'none'} |"


def shown(value):
    text = ",".join(f"{end:g}" for end in value) if isinstance(value, tuple) else value
    return f"`{text}`"


def test_the_documentation_has_the_table():
    page = Path(__file__).parents[2] / "docs" / "export.md"
    assert "\n".join(table()) + "\n" in page.read_text("utf-8")
