"""HDF5 files of tf.keras: order, places of values, and everything that must be refused."""

import contextlib
import functools
import os
import struct
import tracemalloc

import h5py
import numpy as np
import pytest

from bit_keras.checkpoints.files import Hdf5File, is_hdf5
from bit_keras.errors import CheckpointError
from tests.checkpoints import reading
from tests.checkpoints.mutations import FEW, MANY, mutated

read_all = functools.partial(reading.read_all, Hdf5File)
refusal = functools.partial(reading.refusal, Hdf5File)

#: Two layers whose weights have the same names, as in files of `bit_tf2`.
LAYERS = {
    "root_block": {"standardized_conv2d/kernel:0": np.arange(24, dtype="f4").reshape(2, 3, 4)},
    "re_lu": {},
    "block2": {"group_norm/gamma:0": np.float32([1, 2]), "group_norm/beta:0": np.float32([3, 4])},
    "block1": {"group_norm/gamma:0": np.float32([5]), "group_norm/beta:0": np.float32([6])},
    "head/dense": {"resnet/head/dense/kernel:0": np.ones((4, 3), "f4")},
}
NAMES = [f"{layer}/{weight}" for layer, weights in LAYERS.items() for weight in weights]


def fixed(names):
    """Names as tf.keras writes them with h5py 2, all of one length."""
    return np.array([name.encode() for name in names])


def varying(names):
    """Names as tf.keras writes them with h5py 3, in a heap."""
    return np.array([name.encode() for name in names], h5py.string_dtype() if names else None)


def fill(root, layers, listed=fixed):
    """Writes layers as `save_weights_to_hdf5_group` of tf.keras does."""
    root.attrs["layer_names"] = listed(list(layers))
    for layer, weights in layers.items():
        group = root.create_group(layer)
        group.attrs["weight_names"] = listed(list(weights))
        for name, array in weights.items():
            group.create_dataset(name, array.shape, array.dtype)[...] = array


@pytest.fixture(params=[fixed, varying], ids=["names of one length", "names in a heap"])
def listed(request):
    return request.param


@pytest.fixture
def path(tmp_path, listed):
    with h5py.File(tmp_path / "x.h5", "w") as root:
        fill(root, LAYERS, listed)
    return tmp_path / "x.h5"


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype.newbyteorder("=")
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.astype(found[name].dtype).tobytes()
        assert found[name].flags.writeable
        assert found[name].flags.c_contiguous


def test_weights_come_back_in_the_order_in_which_they_were_saved(path):
    assert_same(
        read_all(path),
        {f"{layer}/{name}": w for layer, ws in LAYERS.items() for name, w in ws.items()},
    )
    with Hdf5File(path) as arrays:
        assert arrays.shapes["root_block/standardized_conv2d/kernel:0"] == (2, 3, 4)
        assert set(arrays.dtypes.values()) == {"float32"}


def test_a_whole_model_is_read_like_its_weights(tmp_path, listed):
    with h5py.File(tmp_path / "x.h5", "w") as root:
        fill(root.create_group("model_weights"), LAYERS, listed)
        root.attrs["model_config"] = "{}" * 100_000
        root["optimizer_weights/iteration"] = 3
    assert list(read_all(tmp_path / "x.h5")) == NAMES


def test_what_is_next_to_the_weights_of_a_whole_model_is_not_read(tmp_path, listed):
    with h5py.File(tmp_path / "x.h5", "w") as root:
        fill(root.create_group("model_weights"), LAYERS, listed)
        root.create_dataset("history", data=np.zeros(1000), compression="gzip")
        root["classes"] = "cat"
    assert list(read_all(tmp_path / "x.h5")) == NAMES


def test_weights_of_the_model_itself_come_last(path):
    with h5py.File(path, "a") as root:
        group = root.create_group("top_level_model_weights")
        group.attrs["weight_names"] = [b"scale:0"]
        group["scale:0"] = np.float32(2)
    assert list(read_all(path)) == [*NAMES, "top_level_model_weights/scale:0"]


def test_names_that_are_split_over_several_attributes_are_joined(tmp_path, listed):
    weights = {f"{number:0100}": np.float32([number]) for number in range(1500)}
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root.attrs["layer_names0"], root.attrs["layer_names1"] = [b"a"], [b"b"]
        for layer in "ab":
            group = root.create_group(layer)
            for part in range(4):
                some = list(weights)[part * 375 : part * 375 + 375]
                group.attrs[f"weight_names{part}"] = listed(some)
            for name, array in weights.items():
                group[name] = array
    assert list(read_all(tmp_path / "x.h5")) == [f"{at}/{name}" for at in "ab" for name in weights]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", "<i8", "|u1"])
def test_every_number_is_read_in_the_byte_order_of_the_machine(tmp_path, dtype):
    array = np.array([[0, 1], [1, 0]], dtype)
    with h5py.File(tmp_path / "x.h5", "w") as root:
        fill(root, {"a": {"w:0": array, "scalar:0": array[0, 1], "none:0": array[:0]}})
    found = read_all(tmp_path / "x.h5")
    assert_same(found, {"a/w:0": array, "a/scalar:0": array[0, 1], "a/none:0": array[:0]})
    assert all(array.dtype.isnative for array in found.values())


def test_half_precision_of_the_other_format_is_read_as_float32(tmp_path):
    array = np.array([1.5, -2.0], "float32")
    with h5py.File(tmp_path / "x.h5", "w") as root:
        fill(root, {"a": {"w:0": (array.view("u4") >> 16).astype("<u2").view("V2")}})
    with Hdf5File(tmp_path / "x.h5") as arrays:
        assert arrays.dtypes == {"a/w:0": "bfloat16"}
        assert_same(arrays, {"a/w:0": array})


def test_a_file_of_tf_keras_is_read(tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="what writes such files")

    def block(name):
        layers = [
            tf_keras.layers.BatchNormalization(name="norm"),
            tf_keras.layers.Conv2D(2, 1, use_bias=False, name="conv"),
        ]
        return tf_keras.Sequential(layers, name=name)

    class Network(tf_keras.Model):
        def __init__(self):
            super().__init__(name="resnet")
            self.blocks = [block("block2"), tf_keras.layers.ReLU(), block("block1")]
            self.head = tf_keras.layers.Dense(3, name="head/dense")

        def call(self, inputs):
            for layer in self.blocks:
                inputs = layer(inputs)
            return self.head(inputs)

    model = Network()
    model(np.zeros((1, 4, 4, 2), "float32"))
    weights = [
        w
        for layer in model.layers
        for w in (*layer.trainable_weights, *layer.non_trainable_weights)
    ]
    for number, weight in enumerate(weights):
        weight.assign(np.full(weight.shape, number))
    # Names repeat between the blocks: only the order tells which weight is which.
    assert len({weight.name for weight in weights}) < len(weights) == 12
    model.save_weights(tmp_path / "x.h5")
    found = read_all(tmp_path / "x.h5")
    assert [array.flat[0] for array in found.values()] == list(range(12))
    assert [array.shape for array in found.values()] == [tuple(w.shape) for w in weights]
    assert list(found)[-1] == "head/dense/resnet/head/dense/bias:0"


def dataset(path, name="extra", **options):
    with h5py.File(path, "a") as root:
        root["block1"].create_dataset(name, data=np.ones(100, "f4"), **options)


def external(path):
    (path.parent / "values.bin").write_bytes(bytes(400))
    with h5py.File(path, "a") as root:
        places = [(os.fspath(path.parent / "values.bin"), 0, 400)]
        root["block1"].create_dataset("extra", (100,), "f4", external=places)


def virtual(path):
    with h5py.File(path, "a") as root:
        layout = h5py.VirtualLayout((100,), "f4")
        root["block1"].create_virtual_dataset("extra", layout)


def compact(path):
    with h5py.File(path, "a") as root:
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(root["block1"].id, b"extra", h5py.h5t.IEEE_F32LE, space, creation)


@pytest.mark.parametrize(
    "add",
    [
        lambda path: dataset(path, chunks=(10,)),
        lambda path: dataset(path, compression="gzip"),
        external,
        virtual,
        compact,
    ],
    ids=["chunks", "gzip", "external", "virtual", "compact"],
)
def test_values_that_are_not_in_one_piece_are_refused(path, add):
    add(path)
    message = refusal(path)
    assert "the values of 'block1/extra' compressed, in chunks or in another file" in message
    assert "save the weights with Keras" in message


@pytest.mark.parametrize(
    "target",
    [
        h5py.SoftLink("/root_block"),
        h5py.SoftLink("/block1/extra"),
        h5py.SoftLink("/nothing"),
    ],
    ids=["soft", "cycle", "nowhere"],
)
def test_links_are_refused_and_not_followed(path, target):
    with h5py.File(path, "a") as root:
        root["block1/extra"] = target
    message = refusal(path)
    assert "'block1/extra', a link to somewhere else; save the weights with Keras" in message


@pytest.mark.parametrize("file", ["other.h5", "/etc/passwd"])
def test_links_into_other_files_are_refused(path, file):
    with h5py.File(path, "a") as root:
        root["block1/extra"] = h5py.ExternalLink(file, "/")
    message = refusal(path)
    assert "the group 'block1' in HDF5's newer layout, which has links into other files" in message


def test_the_newer_layout_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as root:
        fill(root, LAYERS)
    assert "contains its objects in HDF5's newer layout" in refusal(tmp_path / "x.h5")


@pytest.mark.parametrize("target", ["/", "block1", "block2", "block2/group_norm/gamma:0"])
def test_what_is_there_under_two_names_is_refused(path, target):
    with h5py.File(path, "a") as root:
        root["block1/extra"] = root[target]
    assert "is there under another name as well" in refusal(path)


@pytest.mark.parametrize(
    "dtype",
    [
        h5py.string_dtype(),
        h5py.vlen_dtype("f4"),
        h5py.ref_dtype,
        h5py.regionref_dtype,
        np.dtype("S4"),
        np.dtype("c8"),
        np.dtype([("a", "f4")]),
        np.dtype([("a", "i1"), ("b", "i1")]),
        np.dtype(("f4", (2,))),
        np.dtype("V3"),
    ],
    ids=str,
)
def test_values_that_are_not_numbers_are_refused(path, dtype):
    with h5py.File(path, "a") as root:
        root["block1"].create_dataset("extra", (4,), dtype)
    assert "values in 'block1/extra' that are not numbers of a common type" in refusal(path)


def test_numbers_whose_bits_are_arranged_differently_are_refused(path):
    datatype = h5py.h5t.IEEE_F32LE.copy()
    datatype.set_ebias(120)
    with h5py.File(path, "a") as root:
        space = h5py.h5s.create_simple((4,))
        h5py.h5d.create(root["block1"].id, b"extra", datatype, space)
    assert "not numbers of a common type" in refusal(path)


def test_a_shape_without_values_is_refused_without_making_room(path):
    with h5py.File(path, "a") as root:
        root["block1"].create_dataset("extra", (1 << 40, 1 << 20), "f4")
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "the values of 'block1/extra'" in message
    assert peak < 2 << 20


def test_an_empty_dataspace_is_refused(path):
    with h5py.File(path, "a") as root:
        root["block1/extra"] = h5py.Empty("f4")
    assert "not numbers of a common type" in refusal(path)


def test_a_dataset_that_no_layer_names_is_refused(path):
    dataset(path)
    message = refusal(path)
    assert "contains 'block1/extra', which its attributes do not name" in message


@pytest.mark.parametrize(
    ("attribute", "values", "words"),
    [
        ("weight_names", [b"group_norm/gamma:0"], "contains 'block1/group_norm/beta:0', which"),
        (
            "weight_names",
            [b"group_norm/gamma:0"] * 2,
            "contains the array 'block1/group_norm/gamma:0'",
        ),
        ("weight_names", [b"../block2/group_norm/gamma:0"], "that is not there"),
        ("weight_names", [b"/block2/group_norm/gamma:0"], "that is not there"),
        ("weight_names", [b"./group_norm/gamma:0"], "that is not there"),
        ("weight_names", [b"group_norm"], "that is not there"),
        ("weight_names", [b"\xff"], "is damaged"),
        ("weight_names", [1.0, 2.0], "is not a list of names"),
        ("weight_names", b"group_norm/gamma:0", "is not a list of names"),
        ("weight_names", [[b"group_norm/gamma:0"]], "is not a list of names"),
        ("weight_names", h5py.Empty("S4"), "is not a list of names"),
        ("weight_names", None, "is damaged"),
    ],
)
def test_attributes_that_make_no_sense_are_refused(path, attribute, values, words):
    with h5py.File(path, "a") as root:
        del root["block1"].attrs[attribute]
        if values is not None:
            root["block1"].attrs[attribute] = values
    assert words in refusal(path)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([b"block1"], "which its attributes do not name"),
        ([b"block1", b"block1"], "contains the array 'block1/group_norm/gamma:0' twice"),
        ([b"nothing"], "it has no group 'nothing'"),
        ([b""], "the group '' has no attribute 'weight_names'"),
        ([b"."], "it has no group '.'"),
        ([b"/"], "it has no group '/'"),
        ([b"../x"], "it has no group '../x'"),
        ([b"block1/group_norm/gamma:0"], "it has no group 'block1/group_norm/gamma:0'"),
        ([b"block1/group_norm/gamma:0/x"], "it has no group 'block1/group_norm/gamma:0/x'"),
    ],
)
def test_lists_of_layers_that_make_no_sense_are_refused(path, layers, words):
    with h5py.File(path, "a") as root:
        root.attrs["layer_names"] = layers
    assert words in refusal(path)


def patched(path, old, new):
    """Writes a file with some bytes replaced wherever they occur, once for each place."""
    data = path.read_bytes()
    places = [at for at in range(len(data)) if data.startswith(old, at)]
    assert places
    for at in places:
        path.write_bytes(data[:at] + new + data[at + len(new) :])
        yield


@pytest.mark.parametrize("size", [1 << 20, 1 << 33, 1 << 61])
def test_an_attribute_of_absurd_size_is_refused_without_making_room(path, size):
    # The dataspace of the list of layers: its only side, and the largest that it may have.
    sides = [(count).to_bytes(8, "little") * 2 for count in (len(LAYERS), size)]
    for _ in patched(path, *sides):
        tracemalloc.start()
        refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 << 20


# Each of the following makes the HDF5 library loop for ever, or take gigabytes.


def test_gaps_between_names_that_lead_into_themselves_do_no_harm(path):
    data = path.read_bytes()
    heaps = [at for at in range(len(data)) if data.startswith(b"HEAP", at)]
    assert len(heaps) > len(LAYERS)
    for heap in heaps:
        gap, address = struct.unpack_from("<16xQQ", data, heap)
        begin = address + gap
        path.write_bytes(data[:begin] + struct.pack("<Q", gap) + data[begin + 8 :])
        assert list(read_all(path)) == NAMES


@pytest.mark.parametrize("size", [0, 1 << 31, 1 << 63, (1 << 64) - 16], ids=hex)
def test_a_heap_whose_sizes_lead_nowhere_is_refused_or_read(tmp_path, size):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as root:
        fill(root, LAYERS, varying)
    data = path.read_bytes()
    heap = data.index(b"GCOL") + 16
    for begin in range(heap, heap + 400, 8):
        path.write_bytes(data[:begin] + size.to_bytes(8, "little") + data[begin + 8 :])
        try:
            assert list(read_all(path)) == NAMES
        except CheckpointError as error:
            assert "is damaged" in str(error)


def test_a_name_of_absurd_length_is_refused_without_making_room(tmp_path):
    path, name = tmp_path / "x.h5", "root_block"
    with h5py.File(path, "w") as root:
        fill(root, LAYERS, varying)
    data = path.read_bytes()
    heap = data.index(b"GCOL").to_bytes(8, "little")
    reference = len(name).to_bytes(4, "little") + heap
    for _ in patched(path, reference, b"\xff\xff\xff\xff"):
        assert "a name of 4294967295 bytes has 10" in refusal(path)
    path.write_bytes(data)
    for _ in patched(path, reference, reference[:4] + bytes(8)):
        assert "its block GCOL is not where it says" in refusal(path)


def test_a_name_that_occurs_twice_in_a_group_is_refused(path):
    with h5py.File(path, "a") as root:
        root["block1/first"], root["block1/other"] = np.float32(1), np.float32(2)
    for _ in patched(path, b"first\0", b"other\0"):
        assert "'block1' contains 'other' twice" in refusal(path)


@pytest.mark.parametrize("name", [b"\xff", b"a\nb"])
def test_entries_whose_names_are_not_text_are_refused(path, name):
    with h5py.File(path, "a") as root:
        root["block1"].create_dataset(name, data=np.ones(3, "f4"))
    assert "is damaged" in refusal(path)


def test_groups_may_be_nested_as_deep_as_a_file_allows(path):
    with h5py.File(path, "a") as root:
        group = root["block1"]
        for _ in range(2000):
            group = group.create_group("g")
        group["extra"] = np.float32(1)
    assert "/extra', which its attributes do not name" in refusal(path)


def test_long_names_of_nested_groups_take_no_memory(path):
    with h5py.File(path, "a") as root:
        group = root["block1"]
        for _ in range(5000):
            group = group.create_group("g" * 60)
    tracemalloc.start()
    message = refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # All paths together have 750 MB.
    assert "its metadata take more than" in message
    assert peak < 64e6


def test_values_that_share_a_place_are_refused(path):
    data = path.read_bytes()
    with h5py.File(path) as root:
        first, second = (
            root[f"block2/group_norm/{name}:0"].id.get_offset() for name in ("gamma", "beta")
        )
    for wrong in (second + 4, second - 4, second, len(data) - 4, 1 << 62):
        places = data.count(first.to_bytes(8, "little"))
        assert places == 1
        path.write_bytes(data.replace(first.to_bytes(8, "little"), wrong.to_bytes(8, "little")))
        assert "is damaged" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"epoch loss\n1 0.5\n", "is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "is"),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), "is damaged"),
    ],
    ids=["text", "signature", "zeros"],
)
def test_what_is_not_hdf5_is_named(tmp_path, content, words):
    (tmp_path / "x.h5").write_bytes(content)
    assert words in refusal(tmp_path / "x.h5")


def test_hdf5_of_others_is_named(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as root:
        root["values"] = np.ones(3)
    assert is_hdf5(tmp_path / "x.h5")
    assert "without the attribute 'layer_names', so it contains no weights of tf.keras" in refusal(
        tmp_path / "x.h5"
    )


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.full)])
def test_a_damaged_file_is_refused_or_read_as_hdf5_reads_it(path, count):
    refused = compared = 0
    for what, data in mutated(path.read_bytes(), count):
        path.write_bytes(data)
        try:
            found = read_all(path)
        except CheckpointError:
            refused += 1
            continue
        # What is not read, such as the order in which names are looked up, may be damaged.
        with contextlib.suppress(OSError, KeyError, RuntimeError), h5py.File(path) as root:
            for name, array in found.items():
                assert array.tobytes() == root[name][...].tobytes(), what
                assert array.shape == root[name].shape, what
                compared += 1
    assert compared > count
    assert count // 4 < refused < count
