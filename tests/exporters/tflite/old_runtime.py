"""Runs files in the interpreter of an old environment: python old_runtime.py JOBS.npz ANSWERS.npz

It is run by other versions of Python than this package, from 3.8, and imports nothing of it. JOBS
has the `paths` of files, and the images for each as `inputs_0` and so on; ANSWERS gets `client`,
`version`, and the outputs for each file: `logits_0` and so on, or `error_0`.
"""

import sys

import numpy as np


def runtime():
    """The name of the installed package, its version, and its interpreter."""
    try:
        import tflite_runtime
        from tflite_runtime.interpreter import Interpreter

        return "tflite-runtime", tflite_runtime.__version__, Interpreter
    except ImportError:
        pass
    try:
        from importlib.metadata import version

        from ai_edge_litert.interpreter import Interpreter

        return "ai-edge-litert", version("ai-edge-litert"), Interpreter
    except ImportError:
        import tensorflow as tf

        return "tensorflow", tf.__version__, tf.lite.Interpreter


def logits_of(interpreter, images):
    """The second output, of one image at a time; in float32."""
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    output = interpreter.get_output_details()[1]
    scale, zero_point = output["quantization"]
    logits = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        logits.append(interpreter.get_tensor(output["index"])[0].astype("float32"))
    return (np.stack(logits) - zero_point) * scale if scale else np.stack(logits)


def main():
    client, version, interpreter = runtime()
    outputs = {"client": client, "version": version}
    with np.load(sys.argv[1]) as jobs:
        for number, path in enumerate(jobs["paths"]):
            try:
                opened = interpreter(str(path))
                outputs[f"logits_{number}"] = logits_of(opened, jobs[f"inputs_{number}"])
            except (RuntimeError, ValueError) as error:
                outputs[f"error_{number}"] = str(error)
    np.savez(sys.argv[2], **outputs)


if __name__ == "__main__":
    main()
