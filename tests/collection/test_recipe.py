"""What a recipe may say, what it cannot, and that the recipes here name everything."""

import pytest

from bit_keras.cli.collection import command
from bit_keras.collection.pages import kaggle_slug
from bit_keras.collection.recipe import Recipe, list_recipes
from bit_keras.errors import BitKerasError, ExportError
from bit_keras.registry import CHECKPOINTS

COLLECTION = """
[collection]
name = "small"
title = "Small"
publisher = "some-body"
publisher_title = "Some Body"
description = "Small networks."
archives = "https://example.com/bit/"
"""
TINY = '[[models]]\nname = "tiny"\nmodel = "bit_tiny.cifar10"\n'


def read(text, folder):
    path = folder / "recipe.toml"
    path.write_text(text)
    return Recipe.read(path)


def refused(text, folder):
    """The one sentence that a recipe is refused with."""
    with pytest.raises(BitKerasError) as error:
        read(text, folder)
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


def test_the_two_recipes_name_every_checkpoint_in_both_variants_and_once():
    items = [item for name in list_recipes() for item in Recipe.read(name).items]
    named = [(item.model, item.variant) for item in items]
    assert sorted(named) == sorted(
        (model, variant)
        for model in CHECKPOINTS
        for variant in ("classification", "feature_extraction")
    )


def test_the_large_recipe_has_a_name_for_everything_on_every_hub():
    recipe = Recipe.read("bit-all")
    items = recipe.items
    assert f"{len(items) // 2} networks" in (recipe.folder / "bit-all.toml").read_text()
    assert len({kaggle_slug(item.name) for item in items}) == len(items)


def test_an_item_needs_only_a_name_and_a_model(tmp_path):
    (item,) = read(COLLECTION + TINY, tmp_path).items
    assert item.archive == "tiny.tar.gz"
    assert (item.variant, item.target, item.version) == ("classification", "hub", 1)
    assert (item.size, item.precision) == (None, "float32")


def test_an_alias_stands_for_its_model(tmp_path):
    (item,) = read(COLLECTION + TINY.replace("bit_tiny.cifar10", "BiT-M-R50x1"), tmp_path).items
    assert item.model == "bit_r50x1.in21k"


def test_a_pattern_stands_for_what_nothing_above_names(tmp_path):
    above = '[[models]]\nname = "first"\nmodel = "bit_r50x1.distilled_in1k_160"\n'
    below = '[[models]]\nname = "{model}"\nmodel = "*distilled*"\n'
    recipe = read(COLLECTION + above + below, tmp_path)
    assert [item.model for item in recipe.items] == [
        "bit_r50x1.distilled_in1k_160",
        "bit_r50x1.distilled_in1k_224",
    ]
    assert recipe.items[1].name == "bit_r50x1.distilled_in1k_224"


@pytest.mark.parametrize(
    ("models", "sentence"),
    {
        'model = "bit_tiny.cifar11"': "There is no model 'bit_tiny.cifar11'. The nearest are",
        'model = "*.cifar11"': "no model matches '*.cifar11'",
        'variant = "regression"': "has the variant 'regression'; allowed are classification,",
        "variant = []": "has the variant []; allowed are",
        "variant = 3": "has the variant 3; allowed are",
        'target = "tpu"': "has the target 'tpu'; allowed are hub, serving",
        'precision = "float8"': "precision goes with target='serving'",
        'target = "serving"\nprecision = "float8"': "float32 or bfloat16",
        'precision = "bfloat16"': "precision goes with target='serving'",
        "size = 64": "size goes with target='serving'",
        "version = 0": "has the version 0; whole numbers from 1 up are allowed",
        'version = "1"': "has the version '1'; whole numbers",
        "version = true": "has the version True; whole numbers",
        "size = 16": "has the size 16; whole numbers from 32 up are allowed",
        'name = "../../tiny"': "has the name '../../tiny'; letters, digits",
        'name = ".."': "has the name '..'; letters, digits",
        'name = "{size}"': "{model} and {variant}",
        "name = 3": "has the name 3; it must be a text",
        'archive = "../tiny.tar.gz"': "has the archive '../tiny.tar.gz'; it is the name of a file",
        'archive = "tiny.zip"': "has the archive 'tiny.zip'; it is the name of a file that ends in",
        'weights = "tiny.npz"': "has 'weights', which is not known; allowed are archive, model",
    }.items(),
)
def test_what_an_item_cannot_be_is_said(tmp_path, models, sentence):
    field = models.partition(" ")[0]
    kept = [line for line in TINY.splitlines() if not line.startswith(f"{field} ")]
    refusal = refused(COLLECTION + "\n".join([*kept, models]), tmp_path)
    assert sentence in refusal


@pytest.mark.parametrize("field", ["name", "model"])
def test_what_is_missing_in_an_item_is_named(tmp_path, field):
    kept = [line for line in TINY.splitlines() if not line.startswith(f"{field} ")]
    sentence = refused(COLLECTION + "\n".join(kept), tmp_path)
    assert f"[[models]] number 1 of {tmp_path / 'recipe.toml'} has no '{field}'" in sentence


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        ('title = "Small"', "", "[collection] of {path} has no 'title'"),
        (
            'title = "Small"',
            "title = 3",
            "[collection] of {path} has the title 3; it must be a text",
        ),
        ("some-body", "Some Body", "small letters, digits and dashes"),
        ('name = "small"', 'name = "../small"', "has the name '../small'"),
        ('title = "Small"', 'titel = "Small"', "has 'titel', which is not known"),
        ("[collection]", "[colection]", "it needs a [collection] and at least one [[models]]"),
        ("[collection]", "[collection", "{path} is not a TOML file"),
    ],
)
def test_what_a_collection_cannot_be_is_said(tmp_path, before, after, sentence):
    refusal = refused(COLLECTION.replace(before, after) + TINY, tmp_path)
    assert sentence.format(path=tmp_path / "recipe.toml") in refusal


@pytest.mark.parametrize("models", ["", "models = 3", "models = [3]", "models = []"])
def test_a_recipe_without_models_is_none(tmp_path, models):
    # Above the table, or the key would belong to it.
    assert "at least one [[models]]" in refused(models + COLLECTION, tmp_path)


def test_no_name_and_no_archive_is_used_twice(tmp_path):
    assert "gives the name 'tiny' to more than one" in refused(COLLECTION + TINY + TINY, tmp_path)
    archives = [
        TINY.replace('"tiny"', f'"{name}"') + 'archive = "a.tar.gz"\n' for name in ("one", "two")
    ]
    sentence = refused(COLLECTION + "".join(archives), tmp_path)
    assert "gives the archive 'a.tar.gz' to more than one artifact" in sentence


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(ExportError, match=r"absent\.toml'.*bit-all, bit-resnet"):
        Recipe.read(tmp_path / "absent.toml")
    with pytest.raises(ExportError, match="cannot be read"):
        Recipe.read(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ExportError, match="is not a TOML file"):
        Recipe.read(tmp_path / "binary.toml")


def test_a_packaged_recipe_is_found_by_its_name_and_a_file_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bit-resnet").write_text(COLLECTION + TINY)
    assert Recipe.read("bit-resnet").name == "bit-resnet"
    assert len(Recipe.read("bit-resnet").items) == 8
    assert Recipe.read("./bit-resnet").name == "small"


def test_help_and_completion_name_every_packaged_recipe():
    argument = command.params[0]
    for name in list_recipes():
        assert f"{name}," in command.help
        assert name in {item.value for item in argument.shell_complete(None, name[:-1])}
