import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import Counter, OrderedDict

import pytest
import torch

from models.foreign.inert_pickle import UnsafeCheckpointError, load_inert
from utils.reading.opening import FileError, failure_reason
from utils.reading.pickle_values import Inert
from utils.reading.pickles import MAX_NAMES, MAX_OPCODES
from utils.reading.tensor_record import TensorRecord, view_of
from utils.reading.torch_archive import MAX_PICKLE, TorchArchive

DOUBLED = b")" + b"q\x01h\x01\x86" * 60  # t = (t, t), sixty times
TYPED = b"ctorch._tensor\n_rebuild_from_type_v2\n"
SET = b"c__builtin__\nset\n"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def storage(numel: int = 4, key: str = "0") -> bytes:
    return (
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + pickle.dumps(numel)[2:-1] + b"tQ"
    )


def tensor(shape: tuple, stride: tuple, offset: object = 0) -> bytes:
    numbers = b"".join(pickle.dumps(value, 2)[2:-1] for value in (offset, shape, stride))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage() + numbers + b"\x89}tR"


def write(path, pickled: bytes, storages: dict[str, bytes] | None = None):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", pickled)
        for key, content in (storages or {"0": bytes(16)}).items():
            archive.writestr(f"model/data/{key}", content)
    return path


@pytest.fixture
def load(tmp_path):
    """What a pickle of protocol 4, without its header and its end, is loaded as."""

    def write_and_load(pickled: bytes):
        path = write(tmp_path / "model_3.pth", b"\x80\x04" + pickled + b".")
        with TorchArchive(path) as archive:
            return load_inert(archive, path)

    return write_and_load


@pytest.fixture
def refused(load):
    """The message about the names that a pickle should not have."""

    def message(pickled: bytes) -> str:
        with pytest.raises(UnsafeCheckpointError) as caught:
            load(pickled)
        return str(caught.value)

    return message


class Payload:
    def __reduce__(self):
        return os.system, ("false",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_names_are_refused_at_every_protocol(tmp_path, protocol):
    path = write(tmp_path / "model_3.pth", pickle.dumps([OrderedDict(), Payload(), Counter()], protocol))
    with TorchArchive(path) as archive, pytest.raises(UnsafeCheckpointError, match=rf"{os.system.__module__}\.system,"):
        load_inert(archive, path)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_come_back(tmp_path, protocol):
    data = {"a": [1, 2.5, "x", b"y", None, (True, -(2**70))], "b": {1, "c"}, 3: OrderedDict(d=b"e", f={})}
    path = write(tmp_path / "model_3.pth", pickle.dumps(data, protocol))
    with TorchArchive(path) as archive:
        found = load_inert(archive, path)
    assert found["b"] == data["b"]
    assert found["a"][0::2] == data["a"][0::2]
    assert found["a"][-1] == (True, -(2**70))
    assert type(found[3]) is OrderedDict
    assert list(found[3]) == ["d", "f"]


def test_an_object_keeps_what_was_stored_of_it(load):
    found = load(b"cmodels.vit\nViTPredictor\n)\x81}" + text("a") + b"K\x01sb")
    assert isinstance(found, Inert)
    assert (found.global_name, found.arguments, found.stored) == ("models.vit.ViTPredictor", (), {"a": 1})


@pytest.mark.parametrize("module", [b"pathlib", b"pathlib._local"])
def test_a_path_is_known_by_its_name_before_and_in_python_3_13(load, module):
    assert load(b"c" + module + b"\nPosixPath\n(" + text("data") + b"tR").arguments == ("data",)


def test_the_name_that_is_used_is_the_one_refused(refused):
    assert "posix.system," in refused(b"U\x05posixU\x06system\x93")
    assert "posix.system," in refused(text("posix") + text("system") + text("models") + b"0\x93")
    assert "os.system," in refused(b"(ios\nsystem\n")
    assert "copyreg.extension_7," in refused(b"\x82\x07")


def test_names_cannot_write_to_the_terminal(refused):
    message = refused(text("os\nall is well\x1b[31m") + text("system") + b"\x93")
    assert message.isprintable()
    assert r"os\nall is well\x1b[31m.system" in message


def test_a_message_stays_short(refused):
    assert len(refused(text("x" * 1_000_000) + text("system") + b"\x93")) < 500
    message = refused(b"(" + b"".join(b"cevil%d\nf\n" % i for i in range(100)) + b"t")
    assert "and 92 more" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.f2py", "Anything"),
        ("torch.distributed.elastic.multiprocessing.subprocess_handler", "SubprocessHandler"),
        ("models", "os.system"),
        ("models.vit", "Outer.Inner"),
        ("models.vit", "function"),
        ("torch.optim.optimizer", "torch.os.system"),
        ("wandb.sdk", "Run"),
        ("datasets.load", "LocalDatasetModuleFactory"),
        ("torch._dynamo.utils", "import_submodule"),
        ("models.\nx", "A"),
    ],
)
def test_packages_are_not_allowed_wholesale(refused, module, name):
    assert f"asks for {module}.{name},".replace("\n", r"\n") in refused(text(module) + text(name) + b"\x93")


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(3).to_sparse(),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, device="meta"),
        torch.ones(2).to(torch.uint16),
    ],
    ids=["sparse", "float8", "meta", "uint16"],
)
def test_unusual_tensors_are_inert(tmp_path, value):
    torch.save({"mask": value}, tmp_path / "x.pth")
    with TorchArchive(tmp_path / "x.pth") as archive:
        found = load_inert(archive, tmp_path / "x.pth")
    assert found["mask"].global_name.startswith("torch._utils._rebuild_")


def test_the_memo_is_no_larger_than_the_file(load):
    tracemalloc.start()
    try:
        load(b"K\x01r" + struct.pack("<I", 2**28))
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", [b")" + b"\x85" * 100_000, DOUBLED], ids=["deep", "doubled"])
def test_nested_tuples_are_no_keys(load, key):
    assert load(b"}" + key + b"K\x01s" + text("a") + b"K\x02s") == {"a": 2}
    assert load(b"(" + key + b"K\x01d") == {}
    assert load(SET + b"](" + key + b"K\x03e\x85R") == {3}
    assert load(b"\x8f(" + key + b"K\x03\x90") == {3}
    assert load(b"(" + key + b"K\x03\x91") == {3}


def test_texts_that_are_no_names_are_no_keys(load):
    keys = (
        text("a\nb")
        + b"K\x01"
        + text("x" * 1000)
        + b"K\x01"
        + b"X\x03\x00\x00\x00\xed\xa0\x80K\x01"
        + text("ok")
        + b"K\x01"
    )
    assert load(b"}(" + keys + b"u") == {"ok": 1}


def test_numbers_with_one_hash_are_no_keys(load):
    number = pickle.dumps(3 * (2**61 - 1), 4)[2:-1]
    assert load(b"}" + number[number.index(b"\x8a") :] + b"K\x01s") == {}


NONSENSE = {
    "a list is called": TYPED + b"(](K\x01eN)Nt" + b"R",
    "a list is a storage": b"]Q",
    "a list of lists is a storage": b"]q\x01" + b"]q\x02(h\x01h\x01eq\x01" * 40 + b"Q",
    "a function that is doubled": b"]q\x01" + b"]q\x02(h\x01h\x01eq\x01" * 40 + b"0" + TYPED + b"(h\x01N)NtR",
    "a set of sets": SET + b"(" + DOUBLED + b"tR",
    "a tensor is changed": tensor((4,), (1,)) + b"}" + text("shape") + text("abc") + b"sb",
    "a tensor's slots are changed": tensor((4,), (1,)) + b"N}" + text("key") + b"]s\x86b",
    "a tensor of many dimensions": tensor((1,) * 50_000, (0,) * 50_000),
    "a tensor of texts": tensor(("a",), (1,)),
    "a tensor of negative size": tensor((-1,), (1,)),
    "a tensor with a broken offset": tensor((1,), (1,), 2.0),
    "a tensor with fewer strides": tensor((2, 2), (1,)),
    "a storage by a path": storage(key="../data.pkl"),
    "a number of 40 kB": b"\x8b" + struct.pack("<i", 40_000) + bytes(40_000),
    "a buffer": b"\x97",
    "an unknown operation": b"\xff",
    "many classes": b"(" + b"".join(b"cmodels\nA%d\n" % i for i in range(MAX_NAMES + 1)) + b"t",
    "many operations": b"N0" * (MAX_OPCODES // 2),
}


@pytest.mark.parametrize("pickled", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_ends_in_a_short_error(load, pickled):
    with pytest.raises(Exception) as caught:
        load(pickled)
    assert not isinstance(caught.value, UnsafeCheckpointError | MemoryError)
    assert len(str(caught.value)) < 200


def test_a_buffer_longer_than_the_file_takes_no_memory(load):
    tracemalloc.start()
    try:
        with pytest.raises((EOFError, pickle.UnpicklingError)):
            load(b"\x96" + struct.pack("<Q", 2**31))
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_a_list_that_became_a_set_is_used_up(load):
    once, again = load(b"](K\x01K\x02eq\x010(" + SET + b"h\x01\x85R" + SET + b"h\x01\x85Rt")
    assert (once, again) == ({1, 2}, set())


def test_a_large_pickle_is_not_read(tmp_path):
    with pytest.raises(ValueError, match="larger than 16 MB"):
        TorchArchive(write(tmp_path / "model_3.pth", bytes(MAX_PICKLE + 1)))


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    path = tmp_path / "model_3.pth"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(FileError, match="not a file"):
        TorchArchive(path)


def record(shape: tuple, stride: tuple, offset: int = 0, numel: int = 4) -> TensorRecord:
    return TensorRecord("0", torch.float32, numel, offset, shape, stride)


@pytest.mark.parametrize(
    "wrong",
    [
        record((3_000_000_000,), (0,)),
        record((5,), (1,)),
        record((2,), (1,), 3),
        record((2**62, 4), (4, 1)),
        record((3,), (2**62,)),
    ],
)
def test_a_tensor_is_no_larger_than_its_storage(wrong):
    with pytest.raises(ValueError, match="is smaller than the shape"):
        view_of(torch.zeros(4), wrong)


@pytest.mark.parametrize(
    "good", [record((2, 2), (1, 2)), record((2,), (2,), 1), record((0, 9), (1, 1)), record((), ())]
)
def test_a_part_of_a_storage_is_found(good):
    whole = torch.arange(4.0)
    assert torch.equal(view_of(whole, good), whole.as_strided(good.shape, good.stride, good.offset))


def test_a_reader_hands_out_no_more_than_the_file_could_hold(tmp_path):
    path = write(tmp_path / "x.pth", b"N.", {"0": torch.arange(1000.0).numpy().tobytes()})
    with TorchArchive(path) as archive:
        for _ in range(20):
            whole = archive.tensor(record((1000,), (1,), numel=1000))  # shared, as tied weights are
        assert torch.equal(whole, torch.arange(1000.0))
        assert archive.tensor(record((999,), (1,), 1, numel=1000))[0] == 1
        with pytest.raises(ValueError, match="overlap"):
            for _ in range(2):
                archive.tensor(record((999,), (1,), numel=1000))


def test_a_reason_is_one_short_line():
    assert failure_reason(KeyError()) == "KeyError"
    assert failure_reason(ValueError("\n\x1b[31m" + "x" * 1000)) == r"\x1b[31m" + "x" * 295 + "..."
