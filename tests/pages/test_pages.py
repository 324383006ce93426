"""README and docs: every Python block runs, every command is understood, every link leads somewhere."""

import re
import tomllib
from itertools import pairwise

import pytest
import torch
import yaml
from hydra.utils import get_object

from doctor.installation import OLDEST_PYTHON
from launch.values import TRUSTED
from tests.builders import REPOSITORY, wall_model_directory
from tests.pages.commands import check
from tests.pages.markdown import BLOCK, NAMED, PAGES, anchors, blocks, commands, links, words_of_code

COMMANDS = {
    piece.text: piece for page in PAGES for piece in commands(page)
}  # a command that is said twice is tried once


@pytest.fixture
def workplace(data_root, tmp_path, monkeypatch):
    """An empty folder with what the pages assume: a data set, and a model at outputs/wall."""
    monkeypatch.chdir(tmp_path)
    wall_model_directory(tmp_path / "outputs" / "wall")
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run_in_the_order_of_their_page(page, workplace):
    threads = torch.get_num_threads()
    for block in blocks(page):
        if block.language == "python" and block.mark is None and not NAMED.match(block.text):
            exec(compile("\n" * block.line + block.text, str(block.page), "exec"), {"__name__": "__page__"})
    torch.set_num_threads(threads)


@pytest.mark.parametrize("piece", COMMANDS.values(), ids=str)
def test_commands_are_understood(piece, workplace, monkeypatch):
    if piece.mark is None:
        check(piece.text, monkeypatch)


def test_marks_are_few_and_of_blocks_with_something_to_run():
    marked = [block for page in PAGES for block in blocks(page) if block.mark is not None]
    assert len(marked) <= 3
    assert {block.language for block in marked} <= {"python", "sh"}
    for page in PAGES:
        assert page.read_text().count("<!-- not run:") == sum(block.page == page for block in marked), page


def test_blocks_with_commands_say_so():
    """Else nobody would try them."""
    for page in PAGES:
        for block in blocks(page):
            first = block.text.split()[0]
            if block.language not in ("sh", "python"):
                assert first not in ("python", "make", "export", "torchrun", "srun", "import", "from"), str(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_lists_and_tables_begin_after_an_empty_line(page):
    """GitHub does not need one, the site does."""
    lines = BLOCK.sub("", page.read_text(encoding="utf-8")).splitlines()
    for before, line in pairwise(lines):
        if line.startswith(("- ", "|")):
            assert not before or before.startswith(("- ", "  ", "|", "<!--")), line


ROOMS = {path.name for path in REPOSITORY.iterdir() if path.is_dir() and not path.name.startswith(".")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_of_ours_exist(page):
    for word in words_of_code(page):
        if re.fullmatch(r"[\w/]+\.(py|yaml|md|toml|txt)", word) and word.split("/")[0] in ROOMS and "/" in word:
            assert (REPOSITORY / word).exists(), word
        if re.fullmatch(r"\w+(\.\w+)*\.[A-Z]\w*", word) and word.split(".")[0] in ROOMS:
            get_object(word)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_exist(page):
    """Those of the commands are composed; of those within sentences the names are compared."""
    known = KEYS | {path.name for path in (REPOSITORY / "conf").iterdir()} | {"resume", TRUSTED}
    for word in words_of_code(page):
        setting = re.match(r"[+~]?([a-z_][\w./]*)(@[\w.]*)?=", word)
        if setting and not setting[1].startswith("hydra"):
            assert setting[1].rsplit(".", 1)[-1] in known, word


def keys_of(node):
    if isinstance(node, dict):
        yield from node
        node = node.values()
    for each in node if not isinstance(node, str) else ():
        if isinstance(each, dict | list):
            yield from keys_of(each)


KEYS = {key for path in (REPOSITORY / "conf").rglob("*.yaml") for key in keys_of(yaml.safe_load(path.read_text()))}
KEYS |= {"direction", "max_failure_rate"}
"""Every key of our configs, and two of Optuna's sweeper."""


def test_the_table_of_options_has_every_option_of_every_group():
    page = (REPOSITORY / "docs" / "running.md").read_text()
    (table,) = re.findall(r"^\| group \| options \|\n\|[-|]+\|\n((?:\|.*\n)+)", page, re.M)
    rows = [line.strip("|\n ").split(" | ", 1) for line in table.splitlines()]
    said = {group: re.findall(r"`([\w.]+)`", options) for groups, options in rows for group in code(groups)}
    for folder in (REPOSITORY / "conf").iterdir():
        if folder.is_dir():
            options = {path.stem for path in folder.glob("*.yaml")}
            options = {name for name in options if not name.startswith("mpc_")}  # each planner once more, says the row
            assert options <= set(said[folder.name]), folder.name


def code(text):
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("python plan.py ckpt_path=x planner=none_such", "none_such"),
        ("python plan.py -m ckpt_path=x planner=gd,cemm", "cemm"),
        ("python train.py training.batchsize=3", "batchsize"),
        ("python train.py training.batch_size=many", "must be a whole number"),
        ("python plan.py ckpt_path=x planner=gd planner.lr=-1", "planner.lr=-1 must be"),
        ("torchrun --nproc_per_node=2 train.py env=walls", "walls"),
        ("make demos", "make demos"),
        ("python -m experiments.none", "nobody told"),
        ("python -m experiments demos", "did you mean demo"),
    ],
)
def test_a_wrong_command_would_be_noticed(command, why, workplace, monkeypatch):
    with pytest.raises(Exception, match=why):
        check(command, monkeypatch)


def test_makefile_says_what_every_target_does(spawn):
    said, _ = spawn(["make", "--no-print-directory", "help"], cwd=REPOSITORY).communicate()
    lines = [line.split(maxsplit=2) for line in said.splitlines()]
    (phony,) = [line for line in (REPOSITORY / "Makefile").read_text().splitlines() if line.startswith(".PHONY:")]
    assert [words[1] for words in lines] == phony.split()[1:]
    assert all(words[0] == "make" and len(words) == 3 for words in lines)


def test_all_say_the_same_of_python():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    versions = [text.rsplit(" ", 1)[1] for text in project["project"]["classifiers"] if ":: Python ::" in text]
    oldest = versions[0]
    assert f"Python {', '.join(versions[:-1])} or {versions[-1]}" in (REPOSITORY / "README.md").read_text()
    assert re.search(r"python=([\d.]+)", (REPOSITORY / "environment.yaml").read_text())[1] in versions
    assert project["project"]["requires-python"] == f">={oldest}"
    assert project["tool"]["mypy"]["python_version"] == oldest
    assert project["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    assert f"version_info >= ({oldest.replace('.', ', ')})" in (REPOSITORY / "Makefile").read_text()
    assert ".".join(map(str, OLDEST_PYTHON)) == oldest


def test_the_readme_is_one_screen_and_the_contents_lead_to_every_page():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 80
    contents = REPOSITORY / "docs" / "index.md"
    listed = {link.partition("#")[0] for link in links(contents)}
    assert {path.name for path in (REPOSITORY / "docs").glob("*.md")} - {contents.name} <= listed
    assert any(link == "docs/index.md" for link in links(REPOSITORY / "README.md"))
