"""A program that imports Keras and this package, in any order, loads what they saved."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import bit_keras
from bit_keras.training import hyper_rule
from bit_keras.training.loop import compile_for

PACKAGE = Path(bit_keras.__file__).parent

#: Prints which names are not registered, whether TensorFlow is loaded without need, and the
#: schedule in a compiled file.
PROGRAM = """
{imports}
import json, sys
names, path = json.loads(sys.argv[1]), sys.argv[2]
missing = [name for name in names if keras.saving.get_registered_object(name) is None]
needless = keras.backend.backend() != "tensorflow" and "tensorflow" in sys.modules
model = keras.models.load_model(path)
schedule = model.optimizer._learning_rate
print(json.dumps([missing, needless, type(schedule).__name__, float(schedule(10))]))
"""


def registered_names():
    """What the source decorates with `register_keras_serializable`."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for decorator in getattr(node, "decorator_list", ()):
                if "register_keras_serializable" in ast.unparse(decorator):
                    (package,) = (argument.value for argument in decorator.args)
                    yield f"{package}>{node.name}"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A model with a layer of each class, compiled with the rule and its schedule."""
    layers = bit_keras.layers
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            layers.StdConv2D(4, 3),
            layers.GroupNorm(2),
            keras.layers.Flatten(),
        ]
    )
    compile_for(model, hyper_rule(100, (32, 32)))
    model.train_on_batch(np.ones((2, 4, 4, 3), "float32"), np.ones((2, 16), "float32"))
    path = tmp_path_factory.mktemp("compiled") / "compiled.keras"
    model.save(path)
    return path


def test_the_names_in_the_source_are_found():
    expected = {"bit_keras>GroupNorm", "bit_keras>RuleSchedule", "bit_keras>StdConv2D"}
    assert set(registered_names()) >= expected


long = pytest.mark.long


@pytest.mark.parametrize(
    "backend", ["jax", pytest.param("tensorflow", marks=long), pytest.param("torch", marks=long)]
)
@pytest.mark.parametrize("imports", ["import keras, bit_keras", "import bit_keras, keras"])
def test_every_registered_class_loads_in_a_fresh_program(compiled, backend, imports):
    pytest.importorskip(backend, reason=f"{backend} is not installed")

    names = sorted(registered_names())
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(imports=imports), json.dumps(names), str(compiled)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    missing, needless, schedule, rate = json.loads(result.stdout.splitlines()[-1])
    assert missing == []
    assert not needless
    assert schedule == "RuleSchedule"
    assert rate == pytest.approx(hyper_rule(100, (32, 32)).learning_rate_at(10), rel=1e-6)
