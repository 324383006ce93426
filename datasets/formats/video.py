"""Chosen frames of an mp4 file, decoding little more than those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import torch
from av.packet import Packet
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from torch import Tensor

from datasets.files import dataset_error, unreadable
from utils.reading.opening import FileError
from utils.reading.torch_file import check_whole

_REMEDY = "Delete it and fetch or collect it again."


class VideoSize(NamedTuple):
    """Number of frames, and their size in pixels."""

    num_frames: int
    height: int
    width: int


class _Video(NamedTuple):
    """An open file: its compressed frames in the order they are decoded, and when each is shown."""

    stream: VideoStream
    packets: list[Packet]
    times: list[int]

    def shown(self) -> list[int]:
        """Numbers of the packets in the order their frames are shown; those that an edit list hides are left out."""
        visible = (number for number, packet in enumerate(self.packets) if not packet.is_discard)
        return sorted(visible, key=lambda number: self.times[number])


def video_size(path: Path) -> VideoSize:
    """Count and measure the frames that an mp4 file promises, without decoding them.

    Raises:
        DatasetError: If the file is missing or is no mp4 file with a video.
    """
    with _opened(path) as video:
        return VideoSize(len(video.shown()), video.stream.height, video.stream.width)


def read_frames(path: Path, steps: Sequence[int], num_frames: int = 0) -> Tensor:
    """Read the frames with these numbers, counted as they are shown: (len(steps), 3, H, W) uint8, RGB.

    They equal those of decoding the whole file in every bit, whatever the spacing of its key frames, the reordering of
    its frames and its time stamps are. The compressed file (about 0.1 MB) is read as a whole, since only all time
    stamps tell which frame is which. Decoding begins at the last key frame before a wanted frame and leaves out the
    frames that no other one refers to, which are most of an ordinary file.

    Args:
        path: The file.
        steps: Frame numbers in any order; one may be repeated.
        num_frames: What the file must have at least.

    Raises:
        DatasetError: If the file is missing or damaged, or has fewer frames than ``steps`` or ``num_frames`` ask for.
    """
    with _opened(path) as video:
        shown = video.shown()
        needed = max([num_frames, *(step + 1 for step in steps)])
        if len(shown) < needed:
            raise dataset_error(path, f"at least {needed} frames", len(shown), _REMEDY)
        times = [video.times[shown[step]] for step in steps]
        decoded = _decode_some(video, _runs(video, [shown[step] for step in steps]), set(times))
        if decoded is None:
            # A stream without true key frames (open groups of pictures, intra refresh) may have to be decoded from its
            # beginning. Whether this is one or a damaged one shows there, where the error is the real one.
            decoded = _decode(video, [range(len(video.packets))], set(times), leave_out=False)
        frames = torch.empty(len(steps), 3, video.stream.height, video.stream.width, dtype=torch.uint8)
        for row, time in enumerate(times):
            if time not in decoded or decoded[time].shape != (*frames.shape[2:], 3):
                found = "another size" if time in decoded else "damage"
                expected = f"an undamaged frame of {frames.shape[3]} x {frames.shape[2]} pixels at step {steps[row]}"
                raise dataset_error(path, expected, found, _REMEDY)
            frames[row] = decoded[time].permute(2, 0, 1)
    return frames


@contextmanager
def _opened(path: Path) -> Iterator[_Video]:
    """Open a file and read its packets; what goes wrong until the block ends comes out as a DatasetError."""
    try:
        check_whole(path)
        # Nothing but mp4: other containers may name files and addresses, which would be opened in turn.
        with av.open(str(path), format="mp4") as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is None or stream.codec_context is None:  # of a video whose kind is not known, there is none
                raise dataset_error(path, "an mp4 file with a video", "none in it", _REMEDY)
            stream.codec_context.thread_count = 1  # readers are processes of their own; the frames are small
            stream.codec_context.options = {"err_detect": "explode"}  # by default, damaged parts are painted over
            packets = [packet for packet in container.demux(stream) if packet.size]
            yield _Video(stream, packets, [_time(packet) for packet in packets])
    except FileNotFoundError as error:
        raise dataset_error(path, "an mp4 file", "no file", "Finish the download or the collection.") from error
    except FileError as error:
        raise unreadable(error, path) from error
    except av.FFmpegError as error:
        found = f"{type(error).__name__} ({error.strerror})"
        raise dataset_error(path, "an undamaged mp4 file", found, _REMEDY) from error


def _time(packet: Packet) -> int:
    if packet.pts is None:
        raise av.InvalidDataError(0, "a frame without a time stamp")
    return packet.pts


def _runs(video: _Video, wanted: Iterable[int]) -> list[range]:
    """Stretches of packets, from a key frame to a wanted one, that together hold what the wanted ones refer to.

    A frame that is decoded after a key frame but shown before it may refer to frames before both (an open group of
    pictures), so that an earlier key frame is taken for it.
    """
    runs: list[range] = []
    for number in sorted(set(wanted)):
        first = number
        while first and not (video.packets[first].is_keyframe and video.times[first] <= video.times[number]):
            first -= 1
        if runs and first < runs[-1].stop:
            first = runs.pop().start
        runs.append(range(first, number + 1))
    return runs


def _decode_some(video: _Video, runs: Sequence[range], times: Set[int]) -> dict[int, Tensor] | None:
    """Decode only what these runs need; None if a frame is missing or damaged then."""
    try:
        # Only H.264: other decoders (dav1d) may not let this be switched from frame to frame.
        decoded = _decode(video, runs, times, leave_out=video.stream.codec_context.name == "h264")
    except av.FFmpegError:
        video.stream.codec_context.flush_buffers()
        return None
    return None if times - decoded.keys() else decoded


def _decode(video: _Video, runs: Iterable[range], times: Set[int], leave_out: bool) -> dict[int, Tensor]:
    """Decode runs of packets; returns the undamaged frames shown at ``times``, (H, W, 3) uint8, by time.

    Args:
        video: The file.
        runs: Of packet numbers.
        times: Of the frames wanted.
        leave_out: Do not decode frames that are neither wanted nor referred to.
    """
    decoded: dict[int, Tensor] = {}
    context, reformatter = video.stream.codec_context, VideoReformatter()
    for run in runs:
        for packet in (*(video.packets[number] for number in run), None):  # None: what the decoder still holds back
            skip = leave_out and packet is not None and packet.pts not in times
            context.skip_frame = "NONREF" if skip else "DEFAULT"
            for frame in context.decode(packet):
                if frame.pts is not None and frame.pts in times and not frame.is_corrupt:
                    # Threads for one small frame cost a hundred times its conversion.
                    picture = reformatter.reformat(frame, format="rgb24", threads=1)
                    decoded[frame.pts] = torch.from_numpy(picture.to_ndarray())
        context.flush_buffers()  # the next run does not continue this one
    return decoded
