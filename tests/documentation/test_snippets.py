"""What the documentation shows, runs, and gives the results it claims."""

import ast
import re

import keras
import numpy as np
import pytest

import bit_keras
from tests.documentation.shell import (
    CANNOT_RUN,
    check,
    check_mention,
    commands_of,
    examples_of_commands,
    require_grammar,
    words_of,
)
from tests.documentation.snippets import (
    LANGUAGES,
    PARSERS,
    ROOT,
    blocks_of_page,
    docstrings,
    mentions_of,
    pages,
    run_python,
)
from tests.documentation.standing import OF_THE_REGISTRY

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="The examples are run once; what they show is tested on every backend elsewhere.",
)

#: Examples in docstrings that take longer than a test of `make test` may.
LONG_EXAMPLES = {
    "bit_keras/benchmark/measurement.py:run_benchmark": "it starts two processes with TensorFlow",
    "bit_keras/collection/builder.py:build_collection": "so it does, one after the other",
    "bit_keras/artifacts/artifact.py:Artifact": "it starts one",
    "bit_keras/training/run.py:load_run": "it trains a network, as the example of finetune does",
}


def page_id(page):
    return str(page.relative_to(ROOT))


def takes_long(blocks):
    """Whether a page has commands that load a network, or Python that loads a published one."""
    commands = [words_of(command)[1] for block in blocks for command in shell(block)]
    published = any(
        re.search(r"create_\w+\(\s*.(?!bit_tiny)", block.source)
        for block in blocks
        if block.language == "python"
    )
    return published or any(
        words[0] == "bit-keras" and words[1] not in OF_THE_REGISTRY for words in commands
    )


def shell(block):
    return commands_of(block) if block.language == "sh" else ()


def pages_with_examples():
    for page in pages():
        blocks = blocks_of_page(page)
        if any(block.language in {"python", "sh"} for block in blocks):
            marks = [pytest.mark.long] if takes_long(blocks) else []
            yield pytest.param(blocks, id=page_id(page), marks=marks)


def examples_in_docstrings():
    for name, blocks in docstrings():
        marks = [pytest.mark.long] if name in LONG_EXAMPLES else []
        yield pytest.param(blocks, id=name, marks=marks)


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_blocks_have_a_language_and_its_grammar(page):
    for block in blocks_of_page(page):
        assert block.language in LANGUAGES, f"{block.place}: {block.language!r} is not known"
        if block.language in PARSERS:
            PARSERS[block.language](block.source)
        elif block.language == "python":
            ast.parse(block.source)
        elif block.language == "sh":
            require_grammar(block)


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_commands_have_the_options_targets_and_extras_that_they_name(page):
    for block in blocks_of_page(page):
        for command in shell(block):
            check(command)


@pytest.mark.parametrize("page", pages(), ids=page_id)
def test_sentences_mention_commands_and_options_that_exist(page):
    for place, text in mentions_of(page):
        check_mention(text, place)


# tensorflow_hub 0.16.1 imports it.
@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated:UserWarning")
@pytest.mark.parametrize("blocks", list(pages_with_examples()))
def test_the_pages_run_from_top_to_bottom(blocks, stage):
    for block in blocks:
        stage.follow(block)


@pytest.mark.parametrize("blocks", list(examples_in_docstrings()))
def test_examples_in_docstrings_run_and_are_true(blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"bit_keras": bit_keras, "np": np, "keras": keras}
    for block in blocks:
        assert block.language in {"python", "sh"}, block.place
        if block.language == "python":
            run_python(block, namespace)


def test_the_commands_in_docstrings_are_those_of_pages():
    # There they are executed, after what they need.
    on_pages = {c.text for page in pages() for block in blocks_of_page(page) for c in shell(block)}
    for _, blocks in docstrings():
        for block in blocks:
            for command in shell(block):
                assert command.text in on_pages, command.place


def test_what_cannot_run_is_written_somewhere():
    blocks = [block for page in pages() for block in blocks_of_page(page)]
    blocks += [block for _, block in examples_of_commands()]
    commands = [command for block in blocks for command in shell(block)]
    assert {command.reason_not_to_run for command in commands} - {None} == set(CANNOT_RUN)


def test_long_examples_are_there():
    assert set(LONG_EXAMPLES) <= {name for name, _ in docstrings()}


def test_every_public_name_is_documented():
    for name in bit_keras.__all__:
        if name != "__version__":
            assert (getattr(bit_keras, name).__doc__ or "").strip(), name


def test_the_readme_names_models_that_exist():
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"\bbit_r\d+x\d\.\w+", text):
        assert bit_keras.model_info(name).name == name
