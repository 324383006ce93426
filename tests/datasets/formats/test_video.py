"""Chosen frames against decoding everything, for many ways to write a video; damage; speed."""

import time
from fractions import Fraction

import av
import numpy as np
import pytest
import torch

from datasets.files import DatasetError
from datasets.formats.video import read_frames, video_size

COUNT = 45


def moving_picture(count, size):
    """A textured square on a path with a cut in the middle, (count, size, size, 3) uint8."""
    random = np.random.RandomState(0)
    frames = np.full((count, size, size, 3), 255, np.uint8)
    texture = random.randint(0, 256, (size // 4, size // 4, 3))
    for number in range(count):
        x, y = ((np.array((3, 2)) * number + (0 if number < count // 2 else 17)) % (size - size // 4)).tolist()
        frames[number, y : y + size // 4, x : x + size // 4] = texture
    return frames


def write_video(path, frames, codec="libx264", pix_fmt="yuv420p", times=None, container=None, **options):
    """Encode with one thread; ``times`` are milliseconds at which the frames are shown."""
    with av.open(str(path), "w", format="mp4", options=container or {}) as file:
        stream = file.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pix_fmt
        stream.options = {"x264-params" if name == "x264" else name: value for name, value in options.items()}
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                picture.pts, picture.time_base = int(times[number]), Fraction(1, 1000)
            file.mux(stream.encode(picture))
        file.mux(stream.encode())


def write_shifted(path, frames, frames_later):
    """Copy an encoded video to other times; those before zero are hidden by an edit list."""
    write_video(path.with_suffix(".tmp"), frames, g="20")
    with av.open(str(path.with_suffix(".tmp")), format="mp4") as file, av.open(str(path), "w") as copy:
        source = file.streams.video[0]
        stream = copy.add_stream_from_template(source)
        packets = [packet for packet in file.demux(source) if packet.size]
        tick = sorted(packet.pts for packet in packets)[1]
        for packet in packets:
            packet.pts, packet.dts = packet.pts + frames_later * tick, packet.dts + frames_later * tick
            packet.stream = stream
            copy.mux(packet)


def decode_all(path):
    """All frames (n, 3, H, W), one after the other."""
    with av.open(str(path)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


IRREGULAR = np.random.RandomState(1).randint(1, 400, COUNT).cumsum()
WAYS = {
    "default": {},
    "only key frames": {"g": "1"},
    "key frame every 5": {"g": "5", "bf": "0"},
    "key frame every 7, reordered": {"g": "7", "x264": "bframes=3:b-adapt=0:b-pyramid=none"},
    "many references": {"x264": "bframes=8:b-pyramid=normal:b-adapt=2:ref=5"},
    "key frames at cuts": {"x264": "keyint=30:min-keyint=2:scenecut=400"},
    "open groups": {"x264": "open-gop=1:keyint=8:bframes=3:b-adapt=0"},
    "no key frames": {"x264": "intra-refresh=1:keyint=12"},
    "weighted, slices": {"x264": "weightp=2:slices=3:keyint=20"},
    "irregular times": {"times": IRREGULAR},
    "late start": {"times": 5000 + 100 * np.arange(COUNT), "g": "9"},
    "fragments": {"container": {"movflags": "frag_keyframe+empty_moov"}, "g": "10"},
    "lossless RGB": {"codec": "libx264rgb", "pix_fmt": "rgb24", "qp": "0"},
    "another codec": {"codec": "mpeg4", "g": "12", "bf": "2"},
}


@pytest.mark.parametrize("way", [*WAYS, "hidden beginning", "gap at the beginning"])
def test_chosen_frames_equal_those_of_the_whole(tmp_path, way):
    path, frames = tmp_path / "episode_000.mp4", moving_picture(COUNT, 48)
    if way in WAYS:
        write_video(path, frames, **WAYS[way])
    else:
        write_shifted(path, frames, {"hidden beginning": -13, "gap at the beginning": 13}[way])
    whole = decode_all(path)
    assert video_size(path) == (len(whole), 48, 48) and len(whole) == COUNT - 13 * (way == "hidden beginning")
    if way == "lossless RGB":
        assert torch.equal(whole, torch.from_numpy(frames).permute(0, 3, 1, 2))
    for step in range(len(whole)):
        assert torch.equal(read_frames(path, [step]), whole[[step]]), step
    random = np.random.RandomState(2)
    for _ in range(20):
        steps = random.choice(len(whole), random.randint(1, 9)).tolist()  # unordered, with repetitions
        assert torch.equal(read_frames(path, steps), whole[steps]), steps
    assert torch.equal(read_frames(path, range(len(whole))), whole)
    assert read_frames(path, []).shape == (0, 3, 48, 48)


def test_frames_that_no_other_refers_to_are_left_out(tmp_path):
    """Damage to such a frame is only met by those who want it, even where it lies in the middle of a sample."""
    path = tmp_path / "episode_000.mp4"
    write_video(path, moving_picture(COUNT, 48), x264="keyint=60:bframes=3:b-adapt=0:b-pyramid=none:scenecut=0")
    whole = decode_all(path)
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    spare = [packet for packet in packets[1:] if not data[packet.pos + 4] & 0x60]  # H.264's nal_ref_idc is 0
    packet = max(spare, key=lambda packet: packet.size)
    damaged = sorted(other.pts for other in packets).index(packet.pts)
    data[packet.pos + 6 : packet.pos + packet.size] = np.random.RandomState(0).bytes(packet.size - 6)
    path.write_bytes(data)
    others = [step for step in range(COUNT) if step != damaged]
    assert 0 < damaged < COUNT - 1
    assert torch.equal(read_frames(path, others), whole[others])
    with pytest.raises(DatasetError, match=r"episode_000\.mp4: expected an undamaged"):
        read_frames(path, [damaged])


def spoilt(path, how):
    data = bytearray(path.read_bytes())
    first, index = data.find(b"mdat") + 4, data.find(b"moov")
    if how == "scrambled":
        middle = (first + index) // 2
        data[middle : middle + 40] = np.random.RandomState(0).bytes(40)
    keep = {"empty": 0, "header only": 40, "cut": int(0.6 * len(data)), "without its index": index}
    if how in keep:
        data = data[: keep[how]]
    if how == "playlist":
        data = f"#EXTM3U\n#EXTINF:1,\n{path}\n".encode()
    if how == "web page":
        data = b"<!DOCTYPE html><html></html>"
    path.write_bytes(data)


@pytest.mark.parametrize(
    "how", ["empty", "header only", "cut", "without its index", "scrambled", "playlist", "web page"]
)
def test_damage_is_an_error_that_names_the_file(tmp_path, how):
    path = tmp_path / "episode_007.mp4"
    write_video(path, moving_picture(COUNT, 48))
    spoilt(path, how)
    with pytest.raises(DatasetError, match=r"episode_007\.mp4: expected an undamaged .*fetch or collect it again"):
        read_frames(path, range(COUNT))


def test_a_download_cut_after_its_index_is_found_when_read(tmp_path):
    path = tmp_path / "episode_007.mp4"
    write_video(path, moving_picture(COUNT, 48), g="5", container={"movflags": "faststart"})
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")
    spoilt(path, "cut")
    with pytest.raises(DatasetError, match=r"episode_007\.mp4"):
        read_frames(path, [0, COUNT - 1])


def test_missing_files_frames_and_videos_are_explained(tmp_path):
    path = tmp_path / "episode_007.mp4"
    with pytest.raises(DatasetError, match=r"episode_007\.mp4: expected an mp4 file, found no file"):
        read_frames(path, [0])
    write_video(path, moving_picture(8, 48))
    for steps, num_frames in (([8], 0), ([0], 9)):
        with pytest.raises(DatasetError, match=r"episode_007\.mp4: expected at least 9 frames, found 8"):
            read_frames(path, steps, num_frames)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 48000
        file.mux(stream.encode(sound))
        file.mux(stream.encode())
    with pytest.raises(DatasetError, match=r"with a video, found none"):
        video_size(path)


@pytest.fixture
def one_thread():
    """Of torch: beside other programs a second one would be waited for, and waiting counts as work."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(number)


@pytest.mark.usefixtures("one_thread")
def test_a_sample_is_read_much_faster_than_an_episode(tmp_path):
    path = tmp_path / "episode_000.mp4"
    write_video(path, moving_picture(246, 224), g="10", crf="18", x264="bframes=4:b-adapt=0:b-pyramid=none:scenecut=0")

    def taken(steps):
        begun = time.process_time()  # of all threads, whatever else the machine does
        read_frames(path, steps)
        return time.process_time() - begun

    whole = min(taken(range(246)) for _ in range(3))
    samples = [min(taken(range(start, start + 40, 5)) for _ in range(3)) for start in range(0, 200, 7)]
    assert whole > 6 * np.mean(samples)  # about 15 times
