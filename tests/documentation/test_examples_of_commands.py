"""The examples in the help of the commands: parsed often, executed in the full tests.

Pages show the same commands, and are executed more often.
"""

import keras
import pytest

from tests.documentation.shell import check, commands_of, examples_of_commands, require_grammar

EXAMPLES = dict(examples_of_commands())


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_have_options_that_exist(name):
    block = EXAMPLES[name]
    require_grammar(block)
    commands = list(commands_of(block))
    assert commands
    for command in commands:
        check(command)


@pytest.mark.full
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="The examples are run once; what they show is tested on every backend elsewhere.",
)
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name, stage):
    stage.follow(EXAMPLES[name])
