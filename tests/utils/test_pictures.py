import av
import numpy as np
import pytest
import torch
from PIL import Image

from utils.pictures import GAP, enlarge, tile, to_uint8, write_mp4, write_png


def flat(colour: tuple[int, int, int], height: int = 32, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_images_are_rounded_and_clamped_not_wrapped():
    images = torch.tensor([-20.0, 0.4, 0.6, 254.6, 300.0]).view(5, 1, 1, 1).expand(5, 3, 2, 2)
    found = to_uint8(images)
    assert found.shape == (5, 2, 2, 3)
    assert found[:, 0, 0, 0].tolist() == [0, 0, 1, 255, 255]
    assert to_uint8(torch.zeros(0, 3, 2, 2)).shape == (0, 2, 2, 3)


def test_channels_move_last():
    image = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1).expand(3, 4, 5)
    assert to_uint8(image).shape == (4, 5, 3)
    assert to_uint8(image)[0, 0].tolist() == [10, 20, 30]


def test_enlarging_keeps_pixels_sharp():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = 255
    large = enlarge(image, 10)
    assert large.shape == (10, 10, 3)
    assert set(np.unique(large)) == {0, 255}
    assert (large[:5, :5] == 255).all()
    assert enlarge(large, 10) is large


def test_tiles_lie_in_rows_with_white_between_them():
    red, green, blue = (flat(colour, 8, 8) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    sheet = tile([[red, None, green], [blue]], side=8)
    assert sheet.shape == (2 * 8 + GAP, 3 * 8 + 2 * GAP, 3)
    step = 8 + GAP
    assert (sheet[:8, :8] == red).all()
    assert (sheet[:8, step : step + 8] == 255).all()
    assert (sheet[:8, 2 * step :] == green).all()
    assert (sheet[step:, :8] == blue).all()
    assert (sheet[8:step] == 255).all()


def test_titles_stand_above_the_columns():
    plain = tile([[flat((255, 0, 0)), flat((0, 0, 255))]], side=32)
    titled = tile([[flat((255, 0, 0)), flat((0, 0, 255))]], side=32, titles=("now", "goal"))
    height = titled.shape[0] - plain.shape[0]
    assert height > 0
    assert np.array_equal(titled[height:], plain)
    assert all((titled[:height, columns] < 100).any() for columns in (slice(0, 32), slice(36, 68)))


def test_a_png_is_exact(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    write_png(tmp_path / "image.png", image)
    with Image.open(tmp_path / "image.png") as read:
        assert np.array_equal(np.asarray(read), image)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 97), (452, 452)])
def test_a_video_can_be_read_again(tmp_path, height, width):
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (128, 128, 128)]
    write_mp4(tmp_path / "video.mp4", [flat(colour, height, width) for colour in colours], fps=5)
    with av.open(str(tmp_path / "video.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 5
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 4
    assert frames[0].shape == (height + height % 2, width + width % 2, 3)
    for frame, colour in zip(frames, colours, strict=True):
        middle = frame[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4].mean((0, 1))
        assert np.abs(middle - colour).max() < 12


def test_equal_frames_give_equal_files(tmp_path):
    blocks = np.random.default_rng(0).integers(0, 256, (10, 48, 48, 3), dtype=np.uint8)
    frames = list(blocks.repeat(10, axis=1).repeat(10, axis=2))
    for name in ("first.mp4", "second.mp4"):
        write_mp4(tmp_path / name, frames)
    assert (tmp_path / "first.mp4").read_bytes() == (tmp_path / "second.mp4").read_bytes()


def test_a_video_that_fails_leaves_the_old_one(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError):
        write_mp4(path, [flat((0, 0, 0)), flat((0, 0, 0), 64, 64)])  # the second frame is larger
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["video.mp4"]
