import errno
import hashlib
import json
import os
import stat
from pathlib import Path

import pytest

from utils.files import atomic_path, sha256, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path):
    path = tmp_path / "deep" / "in" / "here.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("all of it")
        assert not path.exists()
        assert temporary.parent == path.parent  # on the same disk, or the renaming would copy
    assert path.read_text() == "all of it"
    assert names(path.parent) == ["here.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_block_that_writes_nothing_is_an_error_and_changes_nothing(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "old"


def test_the_data_are_on_the_disk_before_the_name_is_and_then_the_name(tmp_path, monkeypatch):
    """After a power loss there is the old file or the new one, whole; and the new one once the writer says so."""
    order = []
    fsync, replace = os.fsync, Path.replace

    def sync(handle):
        order.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else os.fstat(handle).st_size)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", lambda self, target: (order.append("rename"), replace(self, target)))
    write_text(tmp_path / "file", "text")
    assert order == [4, "rename", "folder"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_write_names_the_file_that_was_to_be(tmp_path, number):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError) as caught, atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert (caught.value.errno, caught.value.filename) == (number, str(path))
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_json_and_text(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, 2.5]}
    write_text(tmp_path / "a.txt", "grün")
    assert (tmp_path / "a.txt").read_bytes() == "grün".encode()


def test_the_digest_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"some bytes")
    assert sha256(tmp_path / "file") == hashlib.sha256(b"some bytes").hexdigest()
