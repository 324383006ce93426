"""What every reader of a data set must do, as checks that take one; see ``datasets.trajectories.Trajectories``."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from datasets.previewing.frames import frame_findings
from datasets.previewing.survey import survey
from datasets.trajectories import Trajectories
from datasets.windows import WindowDataset
from envs.base import VectorEnv, simulate

FEW = 3  # trajectories that are looked at
GREY = 8.0  # mean difference of a recorded image from one drawn now; videos lose a little


def check_tables(data: Trajectories) -> None:
    """Every trajectory has a row of everything for each of its steps."""
    assert len(data) == len(data.lengths) > 0 and data.lengths.dtype == torch.int64 and (data.lengths >= 1).all()
    for number in range(min(FEW, len(data))):
        length = int(data.lengths[number])
        rows = {
            data.state_dim: data.states[number],
            data.env_action_dim: data.actions[number],
            data.proprio_dim: data.proprio(number),
        }
        for width, table in rows.items():
            assert len(table) >= length and table.shape[1] == width and table[:length].isfinite().all()
    assert data.action_quantiles().shape == (101, data.env_action_dim)


def check_frames(data: Trajectories) -> None:
    """Frames come as asked for, in any order and again, as images in 0..255."""
    for number in range(min(FEW, len(data))):
        last = int(data.lengths[number]) - 1
        frames = data.frames(number, [last, 0, last])
        assert frames.shape == (3, 3, data.frame_size, data.frame_size)
        low, high = frames.min().item(), frames.max().item()
        assert frames.dtype in (torch.uint8, torch.float32) and low > -1 and 1 < high < 256, "images are 0..255"
        assert torch.equal(frames[0], frames[2]) and torch.equal(data.frames(number, [0])[0], frames[1])


def check_layouts(data: Trajectories) -> None:
    """Every trajectory says the same things of its episode."""
    first = data.layout(0)
    for number in range(min(FEW, len(data))):
        layout = data.layout(number)
        assert {key: value.shape for key, value in layout.items()} == {key: v.shape for key, v in first.items()}


def check_split(data: Trajectories) -> None:
    """No trajectory both trains and validates, and there is something to train on."""
    train, val = data.train_val()
    numbers = torch.cat((train, val))
    assert len(train) and train.dtype == val.dtype == torch.int64
    assert len(numbers.unique()) == len(numbers) and numbers.min() >= 0 and numbers.max() < len(data)


def check_units(data: Trajectories) -> None:
    """The normaliser has the sizes of the data, and goes there and back."""
    actions, units = data.actions[0], data.normalizer
    torch.testing.assert_close(
        units.actions_to_raw(units.actions_to_z(actions)).to(actions), actions, atol=1e-4, rtol=0
    )
    assert units.proprio_to_z(data.proprio(0)).shape == data.proprio(0).shape
    assert units.states_to_z(data.states[0]).shape == data.states[0].shape


def check_samples(data: Trajectories) -> None:
    """It can be cut into windows, by another process too."""
    other = pickle.loads(pickle.dumps(data))
    samples, same = (WindowDataset(each, range(len(each)), each.normalizer, 2, 1, 2)[0] for each in (data, other))
    assert samples.visual is not None and same.visual is not None
    assert torch.equal(samples.visual, same.visual) and torch.equal(samples.actions, same.actions)
    assert samples.layouts.keys() == data.layout(0).keys()


def check_replay(data: Trajectories, env: VectorEnv) -> None:
    """Row t holds frame t and state t, both before action t: the environment goes the same way and draws the same."""
    number = int(data.lengths.argmax())
    length = int(data.lengths[number])
    layouts = {key: value[None] for key, value in data.layout(number).items()}
    actions = data.actions[number][None, : length - 1]
    played = simulate(env, [0], data.states[number][None, 0].double(), actions, layouts, frame_every=1)
    recorded = data.states[number][:length].double()
    assert env.success(played.states[0], recorded).success.all()
    torch.testing.assert_close(env.proprio(recorded), data.proprio(number)[:length].float(), atol=1e-3, rtol=1e-3)
    assert played.frames is not None
    shown = data.frames(number, range(length)).float()
    assert (shown - played.frames[0].float()).abs().mean() < GREY


def check_preview(data: Trajectories) -> None:
    """It can be previewed: tables of all episodes, frames of some; recorded times go forward."""
    found = survey(data, None, np.random.default_rng(0))
    assert len(found.episodes) == len(data) and not any(episode.broken for episode in found.episodes)
    assert not [finding for finding in frame_findings(data, range(min(FEW, len(data)))) if finding.kind == "truncated"]
    times = data.times(0)
    assert times is None or (times[: int(data.lengths[0])].diff() > 0).all()


CHECKS = (check_tables, check_frames, check_layouts, check_split, check_units, check_samples, check_preview)
"""All that take a reader; ``check_replay`` takes the environment, too."""
