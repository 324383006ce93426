import pytest
import torch

from datasets.episode_store import TensorStore, VideoStore
from datasets.formats.video import read_frames


def drawing(num_frames: int, size: int) -> torch.Tensor:
    """A bright square that wanders over a grey ground."""
    frames = torch.full((num_frames, 3, size, size), 90, dtype=torch.uint8)
    for i in range(num_frames):
        frames[i, 0, 2 + i : 10 + i, 4:12] = 240
    return frames


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_tensor_file_holds_the_episode_and_nothing_else(tmp_path, channels_last):
    store, frames = TensorStore(torch.uint8, channels_last), drawing(12, 16)
    store.write(tmp_path / "a.pth", frames[2:7])
    loaded = torch.load(tmp_path / "a.pth", weights_only=True)
    expected = frames[2:7].movedim(1, -1) if channels_last else frames[2:7]
    assert torch.equal(loaded, expected)
    assert loaded.untyped_storage().nbytes() == expected.numel()
    assert store.is_whole(tmp_path / "a.pth", 5, 16)
    assert not store.is_whole(tmp_path / "a.pth", 12, 16)


def test_a_video_shows_the_episode(tmp_path):
    store, frames = VideoStore(), drawing(23, 32)
    store.write(tmp_path / "a.mp4", frames)
    steps = [0, 9, 10, 22]
    found = read_frames(tmp_path / "a.mp4", steps, 23)
    assert (found.int() - frames[steps].int()).abs().float().mean() < 4
    assert store.is_whole(tmp_path / "a.mp4", 23, 32)


def test_the_same_episode_gives_the_same_video(tmp_path):
    noise = torch.randint(0, 256, (12, 3, 96, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for name in ("a.mp4", "b.mp4"):
        VideoStore().write(tmp_path / name, noise)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_an_interrupted_video_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("av.VideoFrame.from_ndarray", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        VideoStore().write(tmp_path / "a.mp4", drawing(3, 32))
    assert not list(tmp_path.iterdir())


def test_a_video_of_odd_sides_is_refused_before_anything_is_simulated():
    TensorStore(torch.uint8).check_size(65)
    VideoStore().check_size(64)
    with pytest.raises(ValueError, match="image_size must be even for videos, got 65"):
        VideoStore().check_size(65)
