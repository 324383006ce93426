import os

import pytest

from models.checkpoints.config_file import read_model_config
from utils.reading.yaml_file import MAX_BYTES


@pytest.fixture
def read(tmp_path):
    """Write a config and read it."""

    def write_and_read(text: str):
        (tmp_path / "hydra.yaml").write_text(text)
        return read_model_config(tmp_path / "hydra.yaml")

    return write_and_read


def test_interpolations_and_dates_stay_text(read):
    found = read("a: ${oc.env:HOME}\nb: {c: '${a}'}\nd: 2026-01-01\ne: ${\nf: ???\n")
    assert found == {"a": "${oc.env:HOME}", "b": {"c": "${a}"}, "d": "2026-01-01", "e": "${", "f": "???"}


def test_numbers_are_those_of_omegaconf(read):
    found = read("a: 1e-4\nb: 1.5e3\nc: 5\nd: '1e-4'\ne: 1.0e-04\nf: e5\n")
    assert found == {"a": 1e-4, "b": 1500.0, "c": 5, "d": "1e-4", "e": 1e-4, "f": "e5"}
    assert type(found["c"]) is int


LAUGHS = "a0: &a0 [1,1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1},*a{i - 1},*a{i - 1}]\n" for i in range(1, 40))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LAUGHS, "anchors and aliases"),
        ("x: &x\n  y: *x\n", "anchors and aliases"),
        ("x: " + "[" * 300 + "]" * 300, "more than 32 levels"),
        ("x: " + "9" * 5000, "digits"),
        ("a: 1\n" * 2, "'a' comes twice"),
        ("? [1, 2]\n: 3\n", "key"),
        ("null: 3\n", "key is of type NoneType"),
        ("x: !!set {a, b}\n", "type set"),
        ("x: !!timestamp a\n", "no readable YAML"),
        ("x: !!python/name:os.system\n", "python/name"),
        ("a: [1\nb: 2\n", "line 2"),
        ("x: " + "a" * MAX_BYTES, "larger than 0.128 MB"),
        ("", "nothing instead of settings"),
        ("{}", "no settings"),
        ("- 1\n", "a list instead of settings"),
    ],
)
def test_what_is_no_plain_config_is_refused_in_one_line(read, text, words):
    with pytest.raises(ValueError, match=rf"hydra\.yaml .*{words}") as caught:
        read(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
def test_what_is_no_file_is_not_opened(tmp_path, kind):
    path = tmp_path / "hydra.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    words = {"pipe": "a named pipe, not a file", "device": "a device", "folder": "a folder", "nothing": "No such file"}
    with pytest.raises(ValueError, match=rf"hydra\.yaml .*{words[kind]}"):
        read_model_config(path)
