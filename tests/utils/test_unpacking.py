"""Zip archives that are damaged, hostile, or unpacked in two attempts."""

import stat
import zipfile
from pathlib import Path

import pytest

from tests.public_server import zipped
from utils.files import temporary_path
from utils.links import LinkError
from utils.unpacking import Archive, ArchiveError

FILES = {"a/one.bin": b"one" * 1000, "a/b/two.bin": b"two" * 1000}


@pytest.fixture
def path(tmp_path) -> Path:
    path = tmp_path / "archive.zip"
    path.write_bytes(zipped(FILES))
    return path


def unpack(path: Path) -> Path:
    """Unpack everything beside the archive."""
    folder = path.with_name("here")
    with Archive(path) as archive:
        archive.unpack({str(name): name for name in archive.files}, folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*") if each.is_file()}


def test_an_archive_is_unpacked_without_what_macos_adds(path):
    path.write_bytes(zipped(FILES | {"__MACOSX/a/._one.bin": b"", "a/._one.bin": b"", "a/.DS_Store": b""}))
    assert content(unpack(path)) == FILES


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/x", "C:x", "a\\..\\..\\x", "__MACOSX/../../x"])
def test_a_name_that_leads_elsewhere_refuses_the_whole_archive(path, name):
    path.write_bytes(zipped(FILES | {name: b"evil"}))
    with pytest.raises(ArchiveError, match="leads out of the folder it is unpacked into"):
        unpack(path)
    assert [each.name for each in path.parent.iterdir()] == ["archive.zip"]


def test_a_link_refuses_the_whole_archive(path):
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("a/link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ArchiveError, match="'a/link' in it is a link or a device"):
        unpack(path)


def test_nothing_is_written_through_a_link_that_is_there(path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LinkError, match="here/a is a link to"):
        unpack(path)
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_an_archive_that_is_cut_short_is_one_line(path):
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ArchiveError, match=r"archive\.zip cannot be unpacked: it is cut short; delete it and fetch"):
        unpack(path)


def test_a_flipped_bit_leaves_no_file(path):
    damaged = bytearray(path.read_bytes())
    damaged[45] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        unpack(path)
    assert content(path.with_name("here")) == {}


def test_a_second_attempt_writes_only_what_is_missing(path):
    folder = unpack(path)
    first = (folder / "a/one.bin").stat().st_mtime_ns
    (folder / "a/b/two.bin").rename(temporary_path(folder / "a/b/two.bin"))  # where a killed process leaves it
    assert content(unpack(path)) == FILES
    assert (folder / "a/one.bin").stat().st_mtime_ns == first


def test_another_file_in_the_way_is_left_alone(path):
    folder = unpack(path)
    (folder / "a/one.bin").write_bytes(b"my" * 1500)
    with pytest.raises(ArchiveError, match=r"a/one\.bin is there and is another file"):
        unpack(path)
    assert (folder / "a/one.bin").read_bytes() == b"my" * 1500


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(path, monkeypatch):
    monkeypatch.setattr("utils.unpacking.free_bytes", lambda folder: 5999)
    with pytest.raises(ArchiveError, match=r"here needs 0\.0 MB of free disk space, and there are 0\.0 MB"):
        unpack(path)
    assert not path.with_name("here").exists()
