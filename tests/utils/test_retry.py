import errno
import logging
import os
import time

import numpy as np
import pytest
import torch

from utils.files import write_json
from utils.pictures import write_mp4, write_png
from utils.retry import DiskError, Retry
from utils.tensor_files import write_safetensors, write_torch


def failing(times, number, path="somewhere/file"):
    """Something that fails so often, and then returns 7; and the list of its attempts."""
    attempts = []

    def attempt():
        attempts.append(time.monotonic())
        if len(attempts) <= times:
            raise OSError(number, os.strerror(number), str(path))
        return 7

    return attempt, attempts


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENOENT])
def test_what_may_pass_is_waited_for(number, caplog):
    attempt, attempts = failing(3, number)
    with caplog.at_level(logging.WARNING):
        assert Retry(1.0, pause=0.01).write("the state", attempt) == 7
    assert len(attempts) == 4
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "the state could not be written", "the disk is back after 0 s"
    ]  # fmt: skip


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EISDIR, errno.ENAMETOOLONG])
def test_what_does_not_pass_is_not_waited_for(number):
    attempt, attempts = failing(1, number)
    with pytest.raises(OSError) as caught:
        Retry(1.0, pause=0.01).write("the state", attempt)
    assert (caught.value.errno, len(attempts)) == (number, 1)


def test_it_gives_up_in_one_line_that_says_everything(tmp_path):
    attempt, attempts = failing(10**6, errno.ENOSPC, tmp_path / "file")
    with pytest.raises(DiskError) as caught:
        Retry(0.002, advice="Continue like this", pause=0.02).write("the state", attempt, needed=12_300_000)
    message = str(caught.value)
    assert message.startswith(f"the state could not be written: {tmp_path / 'file'}: No space left on device (about 12")
    assert "12.3 MB needed, " in message and " free)" in message
    assert message.endswith("; waited 0 s (disk_patience_minutes=0.002). Continue like this")
    assert 2 <= len(attempts) <= 8 and "\n" not in message


def test_without_a_retry_the_first_failure_is_the_last():
    attempt, attempts = failing(1, errno.EIO)
    with pytest.raises(DiskError):
        Retry().write("the state", attempt)
    assert len(attempts) == 1


def test_nothing_is_written_into_the_folder_that_a_lost_mount_leaves(tmp_path):
    anchor, written = tmp_path / "hydra.yaml", []
    with pytest.raises(DiskError, match=r"the folder is gone \(a lost mount\?\)"):
        Retry(0.0, anchor).write("the state", lambda: written.append(1))
    assert not written
    anchor.touch()
    Retry(0.0, anchor).write("the state", lambda: written.append(1))
    assert written


def test_a_read_waits_for_the_cause_of_its_error_and_for_no_space():
    tries = []

    def read():
        tries.append(1)
        if len(tries) < 3:
            try:
                raise FileNotFoundError(errno.ENOENT, "No such file", "data/episode_000.pth")
            except OSError as error:
                raise ValueError("expected a file, found none") from error
        return 7

    assert Retry(1.0, pause=0.01).read("samples", read) == 7
    with pytest.raises(ValueError, match="a file of another size"):
        Retry(1.0).read("samples", lambda: (_ for _ in ()).throw(ValueError("a file of another size")))


def test_a_negative_time_is_refused():
    with pytest.raises(ValueError, match="disk_patience_minutes must be at least 0, got -1"):
        Retry(-1)


@pytest.fixture
def failing_sync(monkeypatch):
    """Let the disk refuse so many files, each when it is whole but for the sync."""

    def fail(times):
        original, calls = os.fsync, []

        def refuse(handle):
            calls.append(handle)
            if len(calls) <= times:
                raise OSError(errno.ENOSPC, "No space left on device")
            original(handle)

        monkeypatch.setattr(os, "fsync", refuse)

    return fail


WRITERS = {
    "json": lambda path, retry: write_json(path, {"a": 1}, retry),
    "torch": lambda path, retry: write_torch(path, {"a": torch.ones(3)}, retry),
    "safetensors": lambda path, retry: write_safetensors(path, {"a": torch.ones(3)}, {"b": "c"}, retry),
    "png": lambda path, retry: write_png(path, np.zeros((4, 4, 3), np.uint8), retry),
    "mp4": lambda path, retry: write_mp4(path, [np.zeros((16, 16, 3), np.uint8)], retry=retry),
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_a_file_is_written_again_until_the_disk_takes_it(tmp_path, failing_sync, write):
    failing_sync(2)
    write(tmp_path / "file", Retry(1.0, pause=0.01))
    assert (tmp_path / "file").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    failing_sync(1)
    with pytest.raises(OSError, match="No space left") as caught:
        write(tmp_path / "other", None)
    assert not isinstance(caught.value, DiskError)


def test_giving_up_on_a_file_names_it(tmp_path, failing_sync):
    failing_sync(10**6)
    with pytest.raises(
        DiskError, match=rf"^file could not be written: {tmp_path}/file: No space left on device \(about 0.0 MB"
    ):
        write_torch(tmp_path / "file", {"a": torch.ones(10_000)}, Retry())
    assert not list(tmp_path.iterdir())
