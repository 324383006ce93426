"""Small files of every kind, broken in every way: one line that names the file, or the content."""

import os
import socket
import zipfile

import numpy as np
import pytest

from utils.reading.json_file import MAX_BYTES, read_json
from utils.reading.npz_file import MAX_ARRAYS, read_npz
from utils.reading.opening import FileError, open_regular
from utils.reading.yaml_file import read_yaml

PLACES = ["pipe", "folder", "device", "socket"]


@pytest.fixture
def in_the_place_of(tmp_path):
    """Put something else where a file should be."""

    def put(kind: str, name: str):
        path = tmp_path / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        return path

    return put


@pytest.mark.parametrize("kind", PLACES)
def test_what_is_no_file_is_refused_at_once(in_the_place_of, kind):
    path = in_the_place_of(kind, "x.json")
    for read in (open_regular, lambda path: read_json(path, dict), lambda path: read_yaml(path, dict), read_npz):
        with pytest.raises(FileError, match=rf"x\.json is a .*{kind}, not a file"):
            read(path)


def test_a_missing_file_is_named(tmp_path):
    for read in (open_regular, lambda path: read_json(path, dict), lambda path: read_yaml(path, dict), read_npz):
        with pytest.raises(FileNotFoundError, match=r"absent\.x"):
            read(tmp_path / "absent.x")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b'{"a": 1', "delimiter"),
        (b"[" * 100_000, "32 levels"),
        (b"[" * 900 + b"]" * 900, "32 levels"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        (b'{"a": ' + b"9" * 21 + b"}", "a number of 21 digits"),
        ("{'größe': 1}".encode("latin-1"), "decode"),
        (b"\0\0\0\0", "Expecting value"),
        (b"[1]", "holds list instead of an object"),
        (b"null", "holds NoneType instead of an object"),
        (b"[" + b"[]," * (MAX_BYTES // 3) + b"[]]", "larger than 4 MB"),
    ],
)
def test_broken_json_is_one_line(tmp_path, content, words):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(FileError, match=rf"run\.json .*{words}") as caught:
        read_json(tmp_path / "run.json", dict, "delete it")
    assert "\n" not in str(caught.value)


def test_json_of_ours_comes_back(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1, 2.5, null, NaN, -7], "b": {"c": "\\ud800"}}')
    found = read_json(tmp_path / "a.json", dict)
    assert found["a"][:3] + found["a"][4:] == [1, 2.5, None, -7]


def archive(path, members: dict[str, bytes], kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header("(1000000000000,)"), "claims the shape"),
        (header("(2,)") + bytes(7), "claims the shape"),
        (header("(0, " + "1, " * 20 + ")"), "claims the shape"),
        (header("(2, -1)") + bytes(8), "begin"),
        (header("(" * 2000), "begin"),
        (header("(1,)", "'|O'") + bytes(8), "begin"),
        (header("(1,)", "'<f3'") + bytes(3), "f3"),
        (header("(1,)", "[('a', '<f4')]") + bytes(4), "begin"),
        (header("(1,)")[:20], "begin"),
        (b"", "begin"),
    ],
)
def test_arrays_that_lie_are_refused(tmp_path, content, words):
    path = archive(tmp_path / "plan_targets.npz", {"states.npy": content})
    with pytest.raises(FileError, match=rf"plan_targets\.npz .*({words})"):
        read_npz(path)


def test_archives_that_lie_are_refused(tmp_path):
    bomb = archive(tmp_path / "bomb.npz", {"a.npy": header("(25000000,)") + bytes(100_000_000)}, zipfile.ZIP_DEFLATED)
    many = archive(tmp_path / "many.npz", {f"{n}.npy": header("(0,)") for n in range(MAX_ARRAYS + 1)})
    (tmp_path / "none.npz").write_bytes(b"PK\x03\x04" + bytes(100))
    for path, words in ((bomb, "unpacks to 100 MB"), (many, "more than 1000 parts"), (tmp_path / "none.npz", "no zip")):
        with pytest.raises(FileError, match=rf"{path.name} .*{words}"):
            read_npz(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_numbers_come_back(tmp_path, save):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b/c": np.asfortranarray(np.ones((2, 2), ">i4")), "d": np.array(True)}
    save(tmp_path / "a.npz", **arrays)
    found = read_npz(tmp_path / "a.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype.newbyteorder("=")
        found[name][...] = 0
