"""docs/extending.md, followed literally in a folder outside the repository."""

import os
import re
import sys
from pathlib import Path

import pytest

from tests.builders import REPOSITORY
from tests.pages.markdown import blocks, commands, named_files

PAGE = REPOSITORY / "docs" / "extending.md"
BRIEF = {
    "datasets.collect": "n_rollout=8 num_steps=60 num_workers=1",
    "train.py": "training.max_batches=4 training.epochs=1 training.num_reconstruct_samples=1 training.val_batches=1 "
    "num_threads=1",
    "plan.py": "n_evals=2 n_plot_samples=1 num_threads=1 env.simulator.num_workers=0",
    "pytest": "-p no:cacheprovider",
}
"""What is added to a command, so that it takes a second."""


@pytest.fixture
def mine(tmp_path):
    """The files of the page."""
    for name, text in named_files(PAGE).items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "mine"


@pytest.mark.slow
def test_every_example_works_as_it_stands(mine, spawn, tmp_path):
    texts = [piece.text.removeprefix("PYTHONPATH=. ") for piece in commands(PAGE)]
    lines = [absolute(text, mine) for text in texts if text.startswith("python ")]
    groups = {path.parent.name for path in mine.glob("*/*.yaml")}
    assert groups == {"env", "planner", "method", "encoder", "projector", "dataset", "proposal"}
    (tmp_path / "data").mkdir()
    more = {"PYTHONPATH": str(REPOSITORY), "DATASET_DIR": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
    (tmp_path / "commands").write_text("\n".join(lines))
    with (tmp_path / "commands").open() as file:
        process = spawn([sys.executable, "-m", "tests.pages.follow"], cwd=tmp_path, env=os.environ | more, stdin=file)
        said, _ = process.communicate()
    assert process.returncode == 0, said[-4000:]
    assert said.count("] success ") == 4 and said.count("finished 4 steps") == 6, said[-4000:]


def absolute(command: str, mine: Path) -> str:
    """A command for any working directory, made short."""
    command = command.replace("../mine", str(mine)).replace("tests/contracts", str(REPOSITORY / "tests" / "contracts"))
    for program, settings in BRIEF.items():
        if re.match(rf"python (-m )?{re.escape(program)}\b", command):
            command = f"{command} {settings}"
    if " plan.py " in command:
        command += " planner.opt_steps=5" if " planner=gd" in command else " planner.max_iter=1"
    return re.sub(r"^python (\w+\.py)", lambda found: f"python {REPOSITORY / found[1]}", command)


def test_every_block_of_code_is_a_file_of_the_folder():
    named = [block for block in blocks(PAGE) if block.language in ("python", "yaml")]
    assert len(named) == len(named_files(PAGE)) > 10
