"""The examples in the help of the commands, executed."""

import keras
import pytest

from tests.documentation.shell import examples_of_commands

EXAMPLES = dict(examples_of_commands())


@pytest.mark.long
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="The examples are run once; what they show is tested on every backend elsewhere.",
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, stage):
    stage.follow(EXAMPLES[name])
