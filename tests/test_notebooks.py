"""The notebooks: written for reading, and executed from top to bottom with the small network."""

import json
import re
import subprocess
import tarfile

import keras
import nbformat
import pytest
from google.protobuf import text_format
from PIL import Image

from tests.cifar10 import CLASSES, ROOT, SAMPLES, cifar10_images

FOLDER = ROOT / "colab"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))

#: The network that comes with the package, in place of the one that a notebook would download.
SMALL = "bit_tiny.cifar10"

#: Seconds; every cell takes a small part of that.
CELL_TIMEOUT, NOTEBOOK_TIMEOUT = 300, 900

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="The notebooks choose no backend; what they show is tested on every backend elsewhere.",
)


# How they are written.


@pytest.fixture(params=NOTEBOOKS)
def notebook(request):
    return nbformat.read(FOLDER / request.param, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag):
    return [cell for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def test_there_is_one_notebook_for_each_story():
    assert NOTEBOOKS == [
        "01_classify_images.ipynb",
        "02_finetune.ipynb",
        "03_saved_models.ipynb",
        "04_convert_and_publish.ipynb",
        "05_features_and_neighbours.ipynb",
        "06_deploy.ipynb",
    ]


def test_notebooks_are_valid_and_run_on_any_python_kernel(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"


def test_nothing_that_a_run_has_left_is_stored(notebook):
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_files_are_as_jupyter_writes_them(name):
    text = (FOLDER / name).read_text("utf-8")
    written = json.dumps(json.loads(text), indent=1, sort_keys=True, ensure_ascii=False)
    assert text == f"{written}\n"


def test_notebooks_open_with_what_they_do_and_what_they_cost(notebook):
    opening = notebook.cells[0]
    assert opening.cell_type == "markdown"
    for part in ("# ", "**At the end**", "**Time:**", "**Downloads:**"):
        assert part in opening.source
    assert re.search(r"\d+ minutes?", opening.source)


def test_the_package_is_installed_first_and_parameters_follow(notebook):
    (install,) = tagged(notebook, "install")
    (parameters,) = tagged(notebook, "parameters")
    assert code_cells(notebook)[:2] == [install, parameters]
    assert "%pip install" in install.source
    assert [cell for cell in notebook.cells if "%pip" in cell.source] == [install]


def test_cells_are_short_enough_to_read(notebook):
    for cell in code_cells(notebook):
        lines = cell.source.splitlines()
        assert len(lines) <= 15, cell.source
        # Addresses cannot be broken.
        assert all(len(line) <= 100 for line in lines if "https://" not in line), cell.source


def test_no_tricks_stand_between_the_reader_and_the_package(notebook):
    for cell in code_cells(notebook):
        for trick in ("try:", "except", "sys.path", "google.colab", "os.environ"):
            assert trick not in cell.source


def test_the_page_of_the_notebooks_lists_them_all():
    page = (ROOT / "docs" / "notebooks.md").read_text("utf-8")
    table = "".join(line for line in page.splitlines() if line.startswith("|"))
    assert re.findall(r"`(\d\d_\w+\.ipynb)`", table) == NOTEBOOKS


# That they run.


class Executed:
    """A notebook after its run: what it printed, and what it left in its folder."""

    def __init__(self, path, folder):
        self.folder = folder
        self.outputs = [
            output for cell in code_cells(nbformat.read(path, 4)) for output in cell.outputs
        ]

    @property
    def text(self):
        """All that was printed."""
        return "".join(
            output.text
            for output in self.outputs
            if output.output_type == "stream" and output.name == "stdout"
        )

    @property
    def results(self):
        """The values of last lines, by type of content."""
        return [output.data for output in self.outputs if "data" in output]

    @property
    def values(self):
        return [data["text/plain"] for data in self.results]

    @property
    def images(self):
        return [data["image/png"] for data in self.results if "image/png" in data]


@pytest.fixture
def execute(installed, tmp_path):
    """Runs a notebook in an empty folder, without a network, with the package from a wheel."""
    variables = environment(installed, tmp_path)
    kernel = ["-m", "ipykernel", "install", "--prefix", str(tmp_path / "kernel")]
    run(installed, [*kernel, "--name", "bit_keras"], tmp_path, variables)

    def execute(name, **parameters):
        folder = tmp_path / "folder"
        folder.mkdir()
        target = tmp_path / name
        arguments = ["-m", "papermill", str(FOLDER / name), str(target), "--cwd", str(folder)]
        arguments += ["--kernel", "bit_keras", "--no-progress-bar"]
        arguments += ["--execution-timeout", str(CELL_TIMEOUT), "-y", json.dumps(parameters)]
        run(installed, arguments, tmp_path, variables)
        return Executed(target, folder)

    return execute


def environment(installed, folder):
    """Nothing is read from or left in the home of whoever runs the tests."""
    return {
        **installed.variables,
        "JUPYTER_PATH": str(folder / "kernel" / "share" / "jupyter"),
        "IPYTHONDIR": str(folder / "ipython"),
        "KERAS_HOME": str(folder / "keras"),
        "BIT_KERAS_CACHE": str(folder / "cache"),
        # Where no proxy listens: a download fails at once.
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "127.0.0.1",
    }


def run(installed, arguments, folder, variables):
    process = subprocess.run(
        [installed.python, *arguments],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=NOTEBOOK_TIMEOUT,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]


@pytest.fixture
def photo():
    return (SAMPLES / "cat.jpg").as_uri()


@pytest.fixture(scope="session")
def flower_photos(tmp_path_factory):
    """Five classes of CIFAR-10, packed as the archive of flowers is."""
    folder = tmp_path_factory.mktemp("archive")
    pixels, targets = cifar10_images(500)
    with tarfile.open(folder / "flower_photos.tgz", "w:gz") as archive:
        for number, (image, target) in enumerate(zip(pixels, targets, strict=True)):
            if target < 5:
                file = folder / "image.jpg"
                Image.fromarray(((image + 1) * 127.5).round().astype("uint8")).save(file)
                archive.add(file, f"flower_photos/{CLASSES[target]}/{number:04d}.jpg")
    return (folder / "flower_photos.tgz").as_uri()


def numbers(pattern, text):
    return [float(number) for number in re.findall(pattern, text, re.MULTILINE)]


@pytest.mark.long
def test_images_are_classified(execute):
    photos = [(SAMPLES / f"{name}.jpg").as_uri() for name in ("cat", "ship", "frog")]
    executed = execute("01_classify_images.ipynb", MODEL=SMALL, PHOTOS=photos)
    assert len(executed.images) == 3
    # The saved network gives the same predictions.
    assert executed.values.count("True") == 1
    assert re.search(r"cat\.jpg +cat +0\.\d", executed.text)


@pytest.mark.long
def test_a_network_is_fine_tuned_on_a_folder(execute, flower_photos):
    executed = execute(
        "02_finetune.ipynb",
        MODEL=SMALL,
        PHOTOS=flower_photos,
        STEPS=20,
        SIZE=64,
        BATCH=32,
        ACCUMULATE=2,
    )
    report = json.loads((executed.folder / "report" / "evaluation.json").read_text())
    assert report["images"] == 25
    # Every fifth would be right by chance.
    assert report["top1"] > 0.6
    assert (executed.folder / "run" / "best.npz").is_file()
    assert "within the tolerance" in executed.text
    # Classes, schedule, curves, confusions, predictions.
    assert len(executed.images) == 5


@pytest.mark.long
def test_saved_models_work_in_both_layers(execute, photo, flower_photos):
    executed = execute(
        "03_saved_models.ipynb", MODEL=SMALL, PHOTO=photo, FLOWERS=flower_photos, EPOCHS=3
    )
    assert re.search(r"\d %  cat", executed.text)
    differences = numbers(r"(?:TFSMLayer|hub\.KerasLayer): (\S+)", executed.text)
    # Same operations, another order of float32 sums.
    assert len(differences) == 2 and max(differences) < 1e-5
    accuracies = numbers(r" val_accuracy: (\S+)", executed.text)
    assert len(accuracies) == 3 and accuracies[-1] > 0.5
    # The second SavedModel gives the same predictions.
    assert executed.values.count("True") == 1
    assert len(executed.images) == 3


@pytest.mark.long
def test_weights_are_converted_and_a_collection_is_published(execute):
    executed = execute("04_convert_and_publish.ipynb", MODEL=SMALL)
    # Back from timm, and read by the builder.
    assert executed.values.count("True") == 2
    assert "collection: 2 artifacts and their archives." in executed.text
    assert (executed.folder / "collection" / "manifest.json").is_file()
    assert any("text/markdown" in data for data in executed.results)


@pytest.mark.long
def test_similar_images_are_neighbours(execute, flower_photos):
    executed = execute(
        "05_features_and_neighbours.ipynb", MODEL=SMALL, PHOTOS=flower_photos, COUNT=40
    )
    (share,) = numbers(r"(\d+) % of the nearest neighbours", executed.text)
    # A fifth by chance.
    assert share > 60
    assert len(executed.images) == 4
    assert (executed.folder / "embeddings.npz").is_file()


@pytest.mark.long
def test_every_program_that_it_is_deployed_to_agrees(execute, photo, server):
    executed = execute("06_deploy.ipynb", MODEL=SMALL, PHOTO=photo, SERVER=server)
    names = ("serving", "TFLite", "TFLite, dynamic", "ONNX")
    for name in names:
        (difference,) = numbers(rf"^{name} +(\d\S+)  cat$", executed.text)
        assert difference < (0.1 if name == "TFLite, dynamic" else 1e-5)
    # The signature in the notebook's own process, and the server.
    assert len(re.findall(r"^ *(\S+) %  cat$", executed.text, re.M)) == 2
    assert "within the tolerance" in executed.text
    assert len(executed.images) == 2


@pytest.fixture
def server(tmp_path):
    """The address of a stand-in for TensorFlow Serving that has the small network as `bit`."""
    model_server_config_pb2 = pytest.importorskip(
        "tensorflow_serving.config.model_server_config_pb2",
        reason="The stand-in for the server takes the messages of the extra serving.",
    )
    from bit_keras.exporters.serving import export_serving
    from bit_keras.models import create_classifier
    from tests.exporters.stand_in_server import stand_in_server

    export_serving(create_classifier(SMALL), tmp_path / "bit")
    config = text_format.Parse(
        f'model_config_list {{ config {{ name: "bit" base_path: "{tmp_path / "bit"}" '
        'model_platform: "tensorflow" } }',
        model_server_config_pb2.ModelServerConfig(),
    )
    with stand_in_server(config) as stand_in:
        yield stand_in.url
