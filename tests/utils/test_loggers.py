import errno
import json
import logging
import math
import os
from pathlib import Path

import pytest

from utils.loggers import JsonLinesLogger, read_json_lines


def test_every_line_is_an_object(tmp_path):
    logger = JsonLinesLogger(tmp_path / "new" / "folder")
    logger.log({"step": 1, "loss": 0.5})
    logger.log({"step": 2, "nested": {"a": [1, 2]}})
    lines = (tmp_path / "new/folder/logs.json").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": 0.5}, {"step": 2, "nested": {"a": [1, 2]}}]


@pytest.mark.parametrize("name", ["/etc/logs.json", "../logs.json", "a/logs.json", "..", ".", ""])
def test_a_log_lies_in_the_folder_of_its_run(tmp_path, name):
    with pytest.raises(ValueError, match=r"logger\.filename=.* must be a plain name"):
        JsonLinesLogger(tmp_path, name)


def test_what_json_does_not_know_becomes_null(tmp_path):
    JsonLinesLogger(tmp_path).log({"a": math.nan, "b": [math.inf, 1.0], "c": {"d": -math.inf}, "e": (2.0, math.nan)})
    text = (tmp_path / "logs.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {"a": None, "b": [None, 1.0], "c": {"d": None}, "e": [2.0, None]}


def test_a_line_is_there_as_soon_as_it_was_logged(tmp_path):
    logger = JsonLinesLogger(tmp_path)
    logger.log({"step": 1})
    assert read_json_lines(logger.path) == [{"step": 1}]
    assert logger.position() == logger.path.stat().st_size


def test_rewinding_forgets_what_came_after(tmp_path):
    logger = JsonLinesLogger(tmp_path)
    logger.log({"step": 1})
    saved = logger.position()
    logger.log({"step": 2})
    again = JsonLinesLogger(tmp_path)
    again.rewind(saved)
    again.log({"step": "2, once more"})
    assert read_json_lines(logger.path) == [{"step": 1}, {"step": "2, once more"}]


def test_rewinding_cuts_a_line_that_was_half_written(tmp_path):
    logger = JsonLinesLogger(tmp_path)
    logger.log({"step": 1})
    saved = logger.position()
    with logger.path.open("a") as file:
        file.write('{"step": 2, "lo')
    logger.rewind(saved)
    logger.log({"step": 2})
    assert read_json_lines(logger.path) == [{"step": 1}, {"step": 2}]


def test_rewinding_never_lengthens_a_file(tmp_path):
    logger = JsonLinesLogger(tmp_path)
    logger.rewind(100)
    assert not logger.path.exists()
    logger.log({"step": 1})
    before = logger.path.read_bytes()
    logger.rewind(10_000)
    assert logger.path.read_bytes() == before


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "logs.json"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]


def steps(logger):
    return [line["step"] for line in read_json_lines(logger.path)]


def test_lines_that_a_disk_refuses_wait_and_come_in_order(tmp_path, monkeypatch, caplog):
    logger = JsonLinesLogger(tmp_path)
    logger.log({"step": 1})
    logger.position()
    original, refusing = Path.open, [True]

    def full(self, mode="r", *rest, **options):
        if "b" in mode and mode != "rb" and refusing[0]:
            with original(self, "ab") as file:
                file.write(b'{"st')  # what still fits
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, mode, *rest, **options)

    monkeypatch.setattr(Path, "open", full)
    with caplog.at_level(logging.WARNING):
        logger.log({"step": 2})
        logger.log({"step": 3})
    assert len([record for record in caplog.records if "wait in memory" in record.message]) == 1
    with pytest.raises(OSError, match="No space left"):
        logger.position()
    refusing[0] = False
    logger.log({"step": 4})
    assert steps(logger) == [1, 2, 3, 4]
    assert logger.position() == logger.path.stat().st_size


def test_lines_written_while_the_folder_was_another_one_are_not_lost(tmp_path):
    """A mount that goes leaves its mount point, an empty folder that takes lines."""
    folder = tmp_path / "run"
    logger = JsonLinesLogger(folder)
    logger.log({"step": 1})
    logger.position()
    logger.log({"step": 2})
    folder.rename(tmp_path / "mounted")
    folder.mkdir()
    logger.log({"step": 3})
    with pytest.raises(OSError, match="lost lines"):
        logger.position()
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    (tmp_path / "mounted").rename(folder)
    logger.log({"step": 4})
    assert steps(logger) == [1, 2, 3, 4]


def test_lines_that_a_failing_sync_may_have_lost_are_written_again(tmp_path, monkeypatch):
    logger = JsonLinesLogger(tmp_path)
    logger.log({"step": 1})
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        with pytest.raises(OSError, match="Input/output"):
            logger.position()
    logger.path.write_bytes(b"\0" * logger.path.stat().st_size)  # as file systems leave it
    assert logger.position() == logger.path.stat().st_size
    assert steps(logger) == [1]
