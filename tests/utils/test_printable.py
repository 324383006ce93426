import io
import logging
import os

import pytest

from utils.printable import PrintableRecord, exit_with, printable, write_printable


def test_nothing_steers_the_terminal():
    assert printable("a\x1b[31mb\n\x07é\u202e\ud800") == r"a\x1b[31mb\n\x07é\u202e\ud800"
    assert printable("a\tb\nc\x1b", lines=True) == "a\tb\nc\\x1b"
    assert printable("plain\ntext", lines=True) == "plain\ntext"
    assert printable("x" * 100, 10) == "x" * 10 + "..."


def test_logs_are_printable():
    record = PrintableRecord("x", logging.INFO, "", 0, "read %s", ("\x1b]0;title\x07",), None)
    assert logging.Formatter("[%(levelname)s] %(message)s").format(record) == r"[INFO] read \x1b]0;title\x07"


def test_the_last_line_is_one_line():
    with pytest.raises(SystemExit, match=r"^error: a\\nb\\x1b$"):
        exit_with("error: a\nb\x1b")


def test_a_stream_gets_what_it_can_show():
    raw = io.BytesIO()
    with io.TextIOWrapper(raw, encoding="ascii") as stream:
        write_printable("é\x1b\n", stream)
        stream.flush()
        assert raw.getvalue() == b"\\xe9\\x1b\n"


def test_a_reader_that_has_gone_ends_the_command_without_a_word(monkeypatch, capfd):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as stream, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        with pytest.raises(SystemExit) as stop:
            write_printable("x" * 100_000, stream)
    assert stop.value.code == 128 + 13
    assert capfd.readouterr() == ("", "")
