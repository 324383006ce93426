"""The memory of corrected trajectories."""

import pytest
import torch

from training.methods.replay_buffer import Corrected, ReplayBuffer


def entry(value: float, trajectories: int = 2, stride: int = 5) -> Corrected:
    """Frames 0, 5, ..., 25 (or every ``stride``-th) of trajectories in which every number is ``value``."""
    frames = 25 // stride + 1
    return Corrected(
        torch.full((trajectories, frames, 3, 4), value),
        torch.full((trajectories, frames, 2), value),
        torch.full((trajectories, 25, 2), value),
        stride,
    )


def counted(stride: int) -> Corrected:
    """Every number says when: proprio and features the raw step, actions the raw step they are executed at."""
    frame = torch.arange(0, 26, stride).float()
    raw = torch.arange(25).float()
    both = torch.tensor([0.0, 100.0])[:, None]  # the second trajectory is 100 later
    return Corrected(
        (both + frame)[..., None, None].expand(2, -1, 3, 4).contiguous(),
        (both + frame)[..., None].expand(2, -1, 2).contiguous(),
        (both + raw)[..., None].expand(2, -1, 2).contiguous(),
        stride,
    )


def values(memory: ReplayBuffer, slot: int | None = None) -> list[float]:
    return [kept.features.flatten()[0].item() for kept in memory.entries(slot)]


def files(memory: ReplayBuffer) -> set[str]:
    return {path.name for path in memory.folder.iterdir()}


@pytest.mark.parametrize(("stride", "num_frames", "starts"), [(5, 2, 5), (1, 2, 21), (5, 4, 3), (1, 4, 11), (5, 7, 0)])
def test_windows_fit_into_their_trajectory_and_the_last_frame_is_used(stride, num_frames, starts):
    assert counted(stride).num_starts(num_frames, 5) == starts
    if starts:
        trajectory, start = torch.tensor([0, 1, 1]), torch.tensor([0, 0, starts - 1])
        features, proprio, actions = counted(stride).gather(trajectory, start, num_frames, 5)
        first = torch.tensor([0.0, 100.0, 100.0 + (starts - 1) * stride])
        frame = first[:, None] + 5 * torch.arange(num_frames)
        assert torch.equal(features, frame[..., None, None].expand(-1, -1, 3, 4))
        assert torch.equal(proprio, frame[..., None].expand(-1, -1, 2))
        assert frame[2, -1] == 125  # the effect of the last block
        raw = first[:, None] + torch.arange(5 * (num_frames - 1))
        blocks = raw[..., None].expand(-1, -1, 2).reshape(3, num_frames - 1, 10)  # x and y of each raw step in turn
        assert torch.equal(actions, blocks)


def test_the_oldest_leave_when_the_capacity_is_exceeded(tmp_path):
    memory = ReplayBuffer(tmp_path, capacity=5)
    for number in range(4):
        memory.add(number % 2, f"{number:08d}", entry(float(number)))
    assert (len(memory), values(memory)) == (4, [2, 3])
    assert values(memory, 0) == [2] and values(memory, 1) == [3] and values(memory, 7) == []
    assert memory.num_bytes == 4 * (6 * 3 * 4 + 6 * 2 + 25 * 2) * 4


def test_entries_of_a_slot_stay_side_by_side(tmp_path):
    memory = ReplayBuffer(tmp_path, capacity=100)
    for number, slot in enumerate([0, 1, 0, 1, 0]):
        memory.add(slot, str(number), entry(float(number)))
    assert values(memory, 0) == [0, 2, 4]
    assert values(memory) == [0, 1, 2, 3, 4]


def test_a_file_is_deleted_only_once_no_saved_state_needs_it(tmp_path):
    memory = ReplayBuffer(tmp_path, capacity=4)
    memory.add(0, "00000001", entry(1))
    memory.add(1, "00000002", entry(2))
    saved = memory.state_dict()
    memory.committed()
    memory.add(0, "00000003_1", entry(3))
    assert values(memory) == [2, 3]
    assert files(memory) == {"00000001.safetensors", "00000002.safetensors", "00000003_1.safetensors"}
    killed = ReplayBuffer(tmp_path, capacity=4)  # the process died here, and its state knows nothing of c
    killed.load_state_dict(saved)
    assert values(killed) == [1, 2]
    assert files(killed) == {"00000001.safetensors", "00000002.safetensors"}
    killed.add(0, "00000003_1", entry(3))
    later = killed.state_dict()
    killed.committed()
    assert files(killed) == {"00000002.safetensors", "00000003_1.safetensors"}
    again = ReplayBuffer(tmp_path, capacity=4)
    again.load_state_dict(later)
    for mine, theirs in zip(again.entries(None), killed.entries(None), strict=True):
        assert torch.equal(mine.features, theirs.features) and torch.equal(mine.proprio, theirs.proprio)
        assert torch.equal(mine.actions, theirs.actions) and mine.stride == theirs.stride
    assert again.state_dict() == later


@pytest.mark.parametrize("spoil", ["missing", "truncated"])
def test_a_missing_or_broken_file_is_named(tmp_path, spoil):
    memory = ReplayBuffer(tmp_path, capacity=4)
    memory.add(0, "a", entry(1))
    path = tmp_path / "a.safetensors"
    if spoil == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"cannot resume: the replay entry .*a\.safetensors is missing or broken"):
        ReplayBuffer(tmp_path, capacity=4).load_state_dict(memory.state_dict())


@pytest.mark.parametrize("name", ["../a", "process_0/../../a", "/a", "", 3])
def test_an_entry_outside_of_the_folder_is_refused(tmp_path, name):
    ReplayBuffer(tmp_path, capacity=4).add(0, "a", entry(1))
    with pytest.raises(ValueError, match=r"cannot resume: .* is no name of a replay entry"):
        ReplayBuffer(tmp_path / "replay", capacity=4).load_state_dict({"entries": [[name, 0, 5]]})


def test_a_capacity_that_cannot_hold_one_refresh_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"replay_capacity must be at least 1, got 0"):
        ReplayBuffer(tmp_path, 0)
    with pytest.raises(ValueError, match=r"replay_capacity=1 is less than one refresh of 2 trajectories"):
        ReplayBuffer(tmp_path, 1).add(0, "a", entry(0))
    assert not list(tmp_path.iterdir())
