"""A preview says what is wrong with data that are wrong, nothing of data that are not, and shows both."""

import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image

from datasets.preview import SUSPICIOUS, preview
from datasets.previewing.config import PreviewConfig
from datasets.previewing.findings import table_findings
from datasets.previewing.frames import frame_findings
from datasets.previewing.replay import replay
from datasets.previewing.survey import choose, survey
from envs.wall.expert import WallRandomWalk
from envs.wall.vector_env import WallVectorEnv
from tests.builders import REPOSITORY, wall_collection
from tests.training.tiny import composed
from utils.schema import parsed

ORDER = torch.randperm(40, generator=torch.Generator().manual_seed(0))
SIZES = {"n_rollout": 40, "num_steps": 40, "image_size": 33, "image_dtype": "uint8"}


@pytest.fixture(scope="module")
def wall(tmp_path_factory):
    """The folder of 40 walks."""
    return wall_collection(tmp_path_factory.mktemp("data") / "wall_single", WallRandomWalk(), **SIZES).run(
        num_workers=1
    )


@pytest.fixture
def spoilt(wall, tmp_path):
    """A copy of it, of which tables can be changed."""
    folder = tmp_path / "wall_single"
    (folder / "obses").mkdir(parents=True)
    for path in wall.rglob("*.pth"):
        (folder / path.relative_to(wall)).symlink_to(path)

    def change(**tables):
        for name, spoil in tables.items():
            path = folder / f"{name}.pth"
            table = torch.load(path, weights_only=True)
            path.unlink()
            torch.save(spoil(table), path)
        return folder

    return change


def settings(folder, out, **more):
    config = composed("env=wall", name="preview", out_dir=str(out), **more)
    config["env"]["dataset"]["data_path"] = str(folder)
    return parsed(PreviewConfig, config)


def lines(folder, out, **more):
    return preview(settings(folder, out, **more)).lines()


def test_sound_data_are_shown_by_a_page_with_its_files_and_nothing_is_said(wall, tmp_path):
    assert lines(wall, tmp_path) == []
    found = json.loads((tmp_path / "preview.json").read_text())
    actions = torch.load(wall / "actions.pth", weights_only=True).flatten(0, 1).double()
    column = next(c for c in found["columns"] if (c["table"], c["index"]) == ("actions", 1))
    assert column["rows"] == 1600 == sum(column["counts"])
    for key, value in {
        "low": actions.amin(0),
        "high": actions.amax(0),
        "mean": actions.mean(0),
        "std": actions.std(0),
    }.items():
        assert column[key] == pytest.approx(value[1].item(), abs=1e-9), key
    assert column["expected_std"] == pytest.approx(column["std"], rel=1e-6), "the normaliser is of the same data"
    assert found["facts"]["train"] == 36 and found["facts"]["val"] == 4 and len(found["replay"]["errors"]) == 40
    assert max(found["replay"]["errors"].values()) < 1e-4, "states are stored in float32"
    page = (tmp_path / "preview.html").read_text()
    named = set(re.findall(r'(?:src|href)="([^"]+)"', page)) - {"data:,"}
    assert {path.name for path in tmp_path.iterdir()} == named | {"preview.html"}
    assert "frames.png" in named and "episodes.mp4" in named and "http" not in page and "<script" not in page
    with Image.open(tmp_path / "frames.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB")).astype(int)
    reddish = (pixels[..., 0] - pixels[..., 1] > 100).any(1)
    assert reddish.sum() > 6 * 3 and sheet.width > 8 * 112, "every row has a dot"


def test_what_was_spoilt_is_named_with_its_episode_and_a_remedy(spoilt, tmp_path):
    def actions(table):
        table[3] = 0.5
        table[:, :, 1] *= 7.0
        return table

    def states(table):
        table[5, 20:] = table[6, 20:]
        table[9] = table[2]
        return table

    said = lines(spoilt(actions=actions, states=states), tmp_path)
    split = json.loads((tmp_path / "preview.json").read_text())
    part = {each["number"]: each["part"] for each in split["episodes"]}
    assert any(
        line.startswith(f"constant actions: episode 3 ({part[3]}): the whole action never changes; ") for line in said
    )
    assert any(
        re.match(r"wrong scale: actions\[1\] goes from -\S+ to \S+, the action space of env=wall", line)
        for line in said
    )
    assert any(
        re.match(rf"gap: episode 5 \({part[5]}\): states\[\d\] changes \d+ times .* rows 19 and 20; split", line)
        for line in said
    )
    assert any(line.startswith("unexplained: episodes 0 (") and "env=wall" in line for line in said)
    assert not any("episode 9" in line for line in said if line.startswith("duplicate")), "its actions are others"


def test_the_command_says_it_and_its_exit_code_tells(spoilt, tmp_path, forked):
    folder = spoilt(actions=lambda table: table.index_fill(0, torch.tensor(4), 0.0))
    words = ("-m", "datasets.preview", "env=wall", f"env.dataset.data_path={folder}", f"out_dir={tmp_path / 'page'}")
    process = forked(*words, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)})
    output, errors = process.communicate()
    assert process.returncode == SUSPICIOUS, errors
    assert "suspicious: constant actions: episode 4 (" in output and "Traceback" not in errors
    assert f"page: {tmp_path / 'page' / 'preview.html'}" in output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "wall_single"]


def test_data_that_cannot_be_z_scored_are_shown_all_the_same(spoilt, tmp_path):
    said = lines(spoilt(actions=lambda table: table.index_fill(2, torch.tensor(1), 0.25)), tmp_path, replay_episodes=0)
    assert any("cannot be z-scored" in line for line in said)
    assert any(line.startswith("constant: actions[1] is 0.25 in all rows") for line in said)
    assert (tmp_path / "preview.html").exists()


def walks(in_memory, count=12, length=30):
    """Random walks in two columns and an angle that goes round."""
    rng = np.random.default_rng(0)
    moves = rng.normal(0, 1, (count, length, 2))
    states = np.concatenate([moves.cumsum(1) + rng.normal(0, 5, (count, 1, 2)), np.zeros((count, length, 1))], 2)
    states[..., 2] = (rng.uniform(0, 6, (count, 1)) + 0.3 * np.arange(length)) % (2 * math.pi)
    images = torch.from_numpy(rng.integers(0, 256, (count, length, 3, 8, 8), np.uint8))
    tables = (torch.from_numpy(states), torch.from_numpy(moves))
    return in_memory(*tables, images, [length] * count)


def said(data, window=10, most=None):
    found = survey(data, most, np.random.default_rng(0))
    return [finding.line(found.named) for finding in table_findings(found, window, None)]


def test_an_angle_that_goes_round_is_no_gap(in_memory):
    assert said(walks(in_memory)) == []


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda d: d.states[4].__setitem__((7, 1), math.nan), r"not finite: episode 4 \(\w+\): proprio is nan at st"),
        (lambda d: d.actions.__setitem__(2, d.actions[2][:20]), r"truncated: episode 2 \(\w+\): actions has 20 rows"),
        (lambda d: d.lengths.__setitem__(6, 9), r"truncated: episode 6 \(\w+\): shorter than a sample of 10 raw steps"),
        (lambda d: d.actions[8][:, 0].fill_(2.0), r"constant actions: episode 8 \(\w+\): actions\[0\] never changes"),
        (lambda d: [a[:, 1].mul_(100) for a in d.actions], r"wrong scale: actions\[1\] has mean .* the normaliser"),
    ],
)  # fmt: skip
def test_each_fault_of_a_table_is_one_line(in_memory, spoil, line):
    data = walks(in_memory)
    spoil(data)
    (found,) = said(data)
    assert re.match(line, found), found


def test_an_episode_in_both_parts_is_a_leak_and_in_one_a_duplicate(in_memory):
    data = walks(in_memory, count=40)
    train, val = (part.tolist() for part in data.train_val())
    for source, target in ((train[0], val[0]), (train[1], train[2])):
        data.states[target], data.actions[target] = data.states[source], data.actions[source]
    data.states[val[1]] = torch.cat([data.states[train[3]][:1], data.states[val[1]][1:]])
    found = [line for line in said(data) if not line.startswith("gap")]
    assert len(found) == 3
    pair = sorted([train[0], val[0]])
    named = ", ".join(f"{number} ({'val' if number in val else 'train'})" for number in pair)
    same = f"leak: episodes {named}: the same states"
    assert any(line.startswith(same) and "validation" in line for line in found)
    assert (
        sum(line.startswith("leak") for line in found) == 2 and sum(line.startswith("duplicate") for line in found) == 1
    )
    assert any(f"episode {val[1]} (val): begin in exactly the state" in line for line in found)
    data.train_val = lambda: (torch.tensor([*train, val[5]]), torch.tensor(val))
    assert any(line.startswith(f"leak: episode {val[5]} (val): in both the training") for line in said(data))


def test_a_gap_in_recorded_times_is_named(in_memory):
    data = walks(in_memory)
    data.times = lambda number: torch.arange(30.0) / 10 + (torch.arange(30) > 11) * (number == 3)
    (found,) = said(data)
    assert re.match(r"gap: episode 3 \(\w+\): 11 times the usual time passes between rows 11 and 12", found)


def test_frames_are_looked_at(in_memory):
    data = walks(in_memory)
    assert frame_findings(data, range(12)) == []
    data.images = data.images.float()
    data.images[1] = data.images[1] / 255
    data.images[2, 29] = 0
    data.images[3] = data.images[3, 0]
    data.images[5] = data.images[6]
    read = data.frames

    def frames(number, steps):
        if number == 7:
            raise OSError("episode_007.mp4: cut\nshort")
        return read(number, steps)

    data.frames = frames
    found = {finding.kind: finding for finding in frame_findings(data, range(12))}
    assert {kind: list(finding.episodes) for kind, finding in found.items()} == {
        "truncated": [7], "wrong scale": [1], "blank frames": [2], "frozen frames": [3], "duplicate": [5, 6]
    }  # fmt: skip
    assert (
        "episode_007.mp4: cut short" in found["truncated"].what
        and found["wrong scale"].what == "pixels of 0..1 instead of 0..255"
    )


@pytest.mark.parametrize(
    ("change", "remedy"),
    [(lambda a: 0.5 * a, "units"), (lambda a: a[ORDER], "units"), (lambda a: a.roll(1, 0), "one row earlier or later")],
)  # fmt: skip
def test_actions_that_do_not_explain_the_states_are_found(wall, tmp_path, change, remedy):
    data = settings(wall, tmp_path).env.data.build()
    usual = survey(data, None, np.random.default_rng(0)).usual
    env = WallVectorEnv(33)
    assert replay(data, env, range(10), usual).findings == []
    data.actions = [change(rows) for rows in data.actions]
    (finding,) = replay(data, env, range(10), usual).findings
    assert finding.kind == "unexplained" and list(finding.episodes) == list(range(10)) and remedy in finding.remedy


def test_sizes_that_are_not_those_of_the_environment_are_a_note(in_memory):
    data = walks(in_memory)
    replayed = replay(data, WallVectorEnv(33), range(3), np.ones(3))
    assert (
        replayed.note == "states have 3 entries here and 2 in env=wall: nothing was simulated" and not replayed.errors
    )


def test_few_of_many_are_drawn_from_both_parts():
    parts = dict.fromkeys(range(90), "train") | dict.fromkeys(range(90, 100), "val")
    drawn = choose(parts, range(100), 30, np.random.default_rng(0))
    assert len(drawn) == len(set(drawn)) == 30 and sum(number >= 90 for number in drawn) == 10
    assert drawn == choose(parts, range(100), 30, np.random.default_rng(0)) == sorted(drawn)
    assert choose(parts, range(100), 100, np.random.default_rng(0)) == list(range(100))
