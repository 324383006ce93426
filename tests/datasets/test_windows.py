"""Samples against the recorded slicer, and through a DataLoader."""

import pickle
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datasets.batch import Batch
from datasets.frames import NoFrames
from datasets.sampler import ResumableSampler
from datasets.units.normalizer import Normalizer
from datasets.windows import WindowDataset, as_is

PARTS = ("action_mean", "action_std", "state_mean", "state_std", "proprio_mean", "proprio_std")


def recorded_normalizer(slicer, name):
    return Normalizer.from_dict({part: slicer[f"{name}/{part}"].tolist() for part in PARTS})


@pytest.mark.parametrize(("key", "num_frames", "num_windows"), [("slices_sorted", 4, 5), ("slices_sorted_h1_n3", 2, 3)])
def test_samples_are_the_recorded_slices(recorded, slicer, key, num_frames, num_windows):
    name, trajectories = recorded
    dataset = WindowDataset(trajectories, range(6), trajectories.normalizer, num_frames, num_windows, 5)
    span = dataset.sample_frames * 5
    found = [(t, s, s + span) for t, s in zip(dataset.trajectory.tolist(), dataset.start.tolist(), strict=True)]
    assert found == [tuple(row[:3]) for row in slicer[f"{name}/{key}"].tolist()]


@pytest.mark.parametrize("item", ["item0", "item1"])
def test_samples_hold_the_recorded_values(recorded, slicer, item):
    name, trajectories = recorded
    wanted = {key.split("/")[-1]: value for key, value in slicer.items() if key.startswith(f"{name}/{item}/")}
    dataset = WindowDataset(trajectories, range(6), recorded_normalizer(slicer, name), 4, 5, 5)
    trajectory, start = wanted["slice"][:2]
    number = int(((dataset.trajectory == trajectory) & (dataset.start == start)).nonzero())
    sample = dataset[number]
    windows = np.arange(5)[:, None] + np.arange(4)  # window w of the recording is frames w..w + 3 of the sample
    np.testing.assert_allclose(sample.actions[0], wanted["act"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sample.proprio[0][windows], wanted["proprio"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(sample.states[0][windows].float(), wanted["state"])
    assert sample.visual.dtype == torch.uint8
    images = (sample.visual[0] / 255 - 0.5) / 0.5
    np.testing.assert_allclose(images[windows], wanted["visual"], atol=1e-6)
    assert trajectories.frames_read == [(trajectory, [start + 5 * frame for frame in range(8)])]


def test_a_batch_equals_its_samples_one_by_one(recorded):
    _, trajectories = recorded
    dataset = WindowDataset(trajectories, [5, 0, 3], trajectories.normalizer, 2, 2, 3)
    numbers = [len(dataset) - 1, 0, 7, 7]
    batch = dataset.__getitems__(numbers)
    assert len(batch) == 4
    for row, number in enumerate(numbers):
        one = dataset[number]
        for field in ("visual", "proprio", "actions", "states", "trajectory", "start"):
            assert torch.equal(getattr(batch, field)[row], getattr(one, field)[0]), field
        assert batch.layouts["number"][row] == one.layouts["number"][0] == batch.trajectory[row]
    assert set(dataset.trajectory.tolist()) == {0, 3, 5}


def test_padding_is_never_delivered(in_memory):
    states = torch.arange(10.0)[None, :, None].expand(2, 10, 2).clone()
    states[0, 6:] = float("nan")
    images = torch.zeros(2, 10, 3, 4, 4, dtype=torch.uint8)
    trajectories = in_memory(states, states.clone(), images, [6, 10])
    dataset = WindowDataset(trajectories, [0, 1], trajectories.normalizer, 2, 1, 2)
    assert len(dataset) == (6 - 4 + 1) + (10 - 4 + 1)
    everything = dataset.__getitems__(range(len(dataset)))
    assert all(getattr(everything, field).isfinite().all() for field in ("proprio", "actions", "states"))


def test_sizes_without_any_sample_are_refused(recorded):
    _, trajectories = recorded
    with pytest.raises(ValueError, match="lower N, num_hist or frameskip"):
        WindowDataset(trajectories, range(6), trajectories.normalizer, 4, 7, 5)
    with pytest.raises(ValueError, match="no trajectory was given"):
        WindowDataset(trajectories, [], trajectories.normalizer, 4, 1, 5)
    with pytest.raises(ValueError, match="frameskip=0"):
        WindowDataset(trajectories, range(6), trajectories.normalizer, 4, 7, 0)


def test_frame_source_replaces_images_and_names_its_field(recorded):
    _, trajectories = recorded

    class Latents:
        field = "latents"

        def read(self, trajectory, step):
            return torch.stack((trajectory, step), -1)[..., None].float()

    dataset = WindowDataset(trajectories, [0, 5], trajectories.normalizer, 2, 2, 5, Latents())
    batch = dataset.__getitems__([0, len(dataset) - 1])
    assert batch.visual is None and trajectories.frames_read == []
    assert batch.latents[:, :, 0, 0].tolist() == [[0] * 3, [5] * 3]
    assert batch.latents[:, :, 1, 0].tolist() == [[s, s + 5, s + 10] for s in batch.start.tolist()]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_data_loader_delivers_the_samplers_batches(recorded, num_workers):
    _, trajectories = recorded
    dataset = WindowDataset(trajectories, range(6), trajectories.normalizer, 2, 1, 5)
    sampler = ResumableSampler(len(dataset), 16, seed=3)
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=as_is, num_workers=num_workers)
    for numbers, batch in zip(list(sampler), loader, strict=True):
        assert torch.equal(batch.trajectory, dataset.trajectory[numbers].long())
        assert torch.equal(batch.start, dataset.start[numbers].long())


def test_batch_slices_moves_and_pickles(recorded):
    _, trajectories = recorded
    batch = WindowDataset(trajectories, range(6), trajectories.normalizer, 2, 1, 5).__getitems__([1, 2, 3])
    assert torch.equal(batch[1:].actions, batch.actions[1:])
    assert torch.equal(batch[1:].layouts["number"], batch.layouts["number"][1:])
    assert len(batch[torch.tensor([True, False, True])]) == 2
    assert torch.equal(batch[torch.tensor([2, 0])].visual, batch.visual[[2, 0]])
    assert batch.to("meta").layouts["number"].device.type == "meta"
    assert torch.equal(pickle.loads(pickle.dumps(batch)).states, batch.states)
    with pytest.raises(TypeError, match="slice"):
        batch[0]


def test_gathering_without_images_is_fast(in_memory):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(400, 50, 2, generator=generator)
    trajectories = in_memory(values, values, torch.zeros(400, 1, 1, 1, 1), [50] * 400)
    dataset = WindowDataset(trajectories, range(400), trajectories.normalizer, 4, 3, 5, NoFrames())
    numbers = torch.randint(len(dataset), (200, 16), generator=generator).tolist()
    taken = []
    for batch in numbers:
        begun = time.perf_counter()
        delivered: Batch = dataset.__getitems__(batch)
        taken.append(time.perf_counter() - begun)
    assert delivered.visual is None and delivered.actions.shape == (16, 6, 10)
    assert sorted(taken)[100] < 5e-3  # about 0.2 ms on an idle core: a loop over samples would show
