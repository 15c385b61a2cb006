"""The C++ loader of `loader.cc`, compiled against the installed TensorFlow and asked by tests."""

import shutil
import subprocess
from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

SOURCE = Path(__file__).with_name("loader.cc")
TENSORFLOW = Path(tf.__file__).parent


def compiled_loader(folder):
    """Compiles the program into a folder and returns its path; skips where no compiler is."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here to compile the C++ loader with")
    program = folder / "loader"
    include = TENSORFLOW / "include"
    process = subprocess.run(
        [
            compiler,
            "-std=c++17",
            "-w",
            *tf.sysconfig.get_compile_flags(),
            # TensorFlow is compiled with this alignment, and tensors cross the border.
            "-DEIGEN_MAX_ALIGN_BYTES=64",
            f"-I{include}/external/local_xla",
            f"-I{include}/external/local_tsl",
            str(SOURCE),
            "-o",
            str(program),
            # Nothing in the program names the sessions and kernels that the library registers.
            "-Wl,--no-as-needed",
            f"-L{TENSORFLOW}",
            "-l:libtensorflow_cc.so.2",
            "-l:libtensorflow_framework.so.2",
            f"-Wl,-rpath,{TENSORFLOW}",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    return program


def ask(program, artifact, requests, folder):
    """Asks a SavedModel in a process without Python.

    Args:
        program: Path, from `compiled_loader`.
        artifact: Path.
        requests: list of (signature, array).
        folder: Path. An empty folder for the requests and outputs.

    Returns:
        For each request a dict from output to array, or the message of its failure.
    """
    for number, (signature, array) in enumerate(requests):
        proto = tf.make_tensor_proto(array)
        path = folder / f"{number:03d}.{signature}.request"
        path.write_bytes(proto.SerializeToString())
    process = subprocess.run(
        [program, artifact, folder], capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr
    return [output(folder, number) for number in range(len(requests))]


def output(folder, number):
    error = folder / f"{number:03d}.error"
    if error.exists():
        return error.read_text()
    outputs = {}
    for path in folder.glob(f"{number:03d}.*.output"):
        proto = tensor_pb2.TensorProto.FromString(path.read_bytes())
        outputs[path.name.split(".")[1]] = tf.make_ndarray(proto)
    return outputs
