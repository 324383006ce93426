"""Paths as a shell passes them."""

from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import example, given
from hypothesis import strategies as st

from launch.grammar import parse_override, quoted
from launch.paths import readable_paths

ODD = [
    "/data/my runs/a=b (1)/ü", "a[1]{2}", "it's", 'say "so"', "a,b", "2024", "true", "1e5", "nan", "#1", "a&b;c", "x\\",
    "[a]", "{a: b}", "a (1)", "(", "~x", "ends with'", "~", "a~b", "$5", "Ünï/日本", "'", "a\tb", "-x", "=x", "a:b",
]  # fmt: skip


def read(argument: str):
    (override,) = OverridesParser.create().parse_overrides([argument])
    return override.value()


@pytest.mark.parametrize("path", ODD)
@pytest.mark.parametrize("key", ["ckpt_path", "hydra.run.dir", "env.dataset.data_path", "folder", "+goal_file_path"])
def test_what_the_shell_passes_is_what_is_read(path, key):
    (argument,) = readable_paths([f"{key}={path}"])
    assert str(read(argument)) == (str(Path.home()) if path == "~" else path)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("ckpt_path=~/x y/1", f"{Path.home()}/x y/1"),
        ("ckpt_path='~/x'", "~/x"),  # in Hydra's own quotes it is said literally
        ("ckpt_path=outputs/wall\r", "outputs/wall"),
        ("ckpt_path=a\\ b", "a b"),  # Hydra's own escapes are left to it
        ("ckpt_path='a=b'", "a=b"),
        ("goal_file_path=null", None),
        ("ckpt_path=???", "???"),
    ],
)
def test_home_line_ends_and_hydras_own_spelling(argument, expected):
    assert read(readable_paths([argument])[0]) == expected


def test_what_hydra_reads_already_stays_as_it_is_so_that_sweeps_keep_their_names():
    kept = [
        "-m", "ckpt_path=a,b", "ckpt_path=outputs/wall", "ckpt_path='a','b c'", "ckpt_path=choice(a,b)", "seed=1,2",
        "objective.alpha=(1)", "hydra.sweep.dir='x=1'", "ckpt_path=${env.name}/x", "--config-dir=a=b", "seed=~",
    ]  # fmt: skip
    assert readable_paths(kept) == kept


def test_several_paths_are_swept_one_by_one_and_one_that_has_a_comma_is_one(tmp_path):
    (argument,) = readable_paths(["-m", "ckpt_path=/a b=1,~/ü,c"])[1:]
    assert [str(each) for each in parse_override(argument).sweep_string_iterator()] == [
        "'/a b=1'",
        f"'{Path.home()}/ü'",
        "c",
    ]
    (tmp_path / "x,y").mkdir()
    (argument,) = readable_paths(["-m", f"ckpt_path={tmp_path}/x,y"])[1:]
    assert not parse_override(argument).is_sweep_override() and read(argument) == f"{tmp_path}/x,y"


def test_paths_that_lack_the_sweep_are_left_to_hydra_to_say_so(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    argument = f"ckpt_path={tmp_path}/a,{tmp_path}/b"
    assert readable_paths([argument]) == [argument]


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: "${" not in text))
@example("a\\'b\\")
def test_any_text_survives_its_quotes(text):
    assert read(f"key={quoted(text)}") == text
