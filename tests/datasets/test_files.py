"""Files from elsewhere are read without running them."""

import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.files import DatasetError, dataset_root, load_plain_pickle, load_tensor


class Hostile:
    """Its pickle creates a file when it is opened by the ordinary unpickler."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_are_read(tmp_path, protocol):
    written = {
        "lengths": [3, 4, 5],
        "array": np.arange(6, dtype=np.int64).reshape(2, 3)[:, ::2],
        "scalar": np.float32(1.5),
        "shapes": ("T", "L"),
        "text": np.array(["T", "square"]),
        "ordered": OrderedDict(a={1, 2}, b=frozenset({3}), c=b"x", d=1j),
    }
    path = tmp_path / "seq_lengths.pkl"
    path.write_bytes(pickle.dumps(written, protocol))
    read = load_plain_pickle(path)
    np.testing.assert_array_equal(read.pop("array"), written.pop("array"))
    np.testing.assert_array_equal(read.pop("text"), written.pop("text"))
    assert read == written


def test_names_of_older_numpy_are_understood(tmp_path):
    current = pickle.dumps(np.arange(4), protocol=0)
    older = current.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert older != current
    path = tmp_path / "seq_lengths.pkl"
    path.write_bytes(older)
    assert load_plain_pickle(path).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_pickle_is_refused_and_not_run(tmp_path, protocol):
    trace = tmp_path / "was_run"
    path = tmp_path / "shapes.pkl"
    path.write_bytes(pickle.dumps(["T", Hostile(trace)], protocol))
    assert any(opcode.name == "REDUCE" for opcode, _, _ in pickletools.genops(path.read_bytes()))
    with pytest.raises(DatasetError, match=r"shapes\.pkl.*system"):
        load_plain_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize("payload", [b"cbuiltins\neval\n(S'1'\ntR.", b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93."])
def test_other_globals_are_refused(tmp_path, payload):
    path = tmp_path / "x.pkl"
    path.write_bytes(payload)
    with pytest.raises(DatasetError, match=r"eval|ndarray\.dump"):
        load_plain_pickle(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"not a pickle", pickle.dumps(list(range(1000)))[:-20]])
def test_damaged_pickle_is_an_error_that_names_the_file(tmp_path, content):
    path = tmp_path / "seq_lengths.pkl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"seq_lengths\.pkl"):
        load_plain_pickle(path)
    with pytest.raises(DatasetError, match="no file"):
        load_plain_pickle(tmp_path / "absent.pkl")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_read_in_both_forms(tmp_path, zipped):
    written = torch.randn(3, 4, dtype=torch.float64)
    torch.save(written, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(load_tensor(tmp_path / "a.pth"), written)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_tensor_file_is_refused_and_not_run(tmp_path, zipped):
    trace = tmp_path / "was_run"
    torch.save({"x": Hostile(trace)}, tmp_path / "states.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DatasetError, match=r"states\.pth.*does not load safely"):
        load_tensor(tmp_path / "states.pth")
    assert not trace.exists()


@pytest.mark.parametrize("keep", [0, 3, 100, 1500, -1])
def test_truncated_tensor_file_is_an_error_that_names_the_file(tmp_path, keep):
    path = tmp_path / "states.pth"
    torch.save(torch.zeros(500), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DatasetError, match=r"states\.pth.*fetch it again"):
        load_tensor(path)


def test_something_else_than_a_tensor_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "states.pth")
    with pytest.raises(DatasetError, match="holds a list instead of one tensor"):
        load_tensor(tmp_path / "states.pth")


def test_dataset_root_says_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setenv("DATASET_DIR", str(tmp_path))
    assert dataset_root() == tmp_path
    monkeypatch.setenv("DATASET_DIR", str(tmp_path / "absent"))
    with pytest.raises(DatasetError, match=r"DATASET_DIR=.*absent: expected an existing folder"):
        dataset_root()
    monkeypatch.delenv("DATASET_DIR")
    with pytest.raises(DatasetError, match="export DATASET_DIR="):
        dataset_root()
