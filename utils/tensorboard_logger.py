"""TensorBoard beside the log file."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from PIL import Image

from utils.tracked_logger import Shown, TrackedLogger, shown

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

MILLISECONDS = 250  # that a frame of a video stays


class TensorBoardLogger(TrackedLogger):
    """Writes the lines of the log as TensorBoard event files as well: ``tensorboard --logdir <folder>``.

    A resumed run tells TensorBoard to forget everything from the last saved step on, and shows that step's lines again:
    lines of one step need not have reached the disk together.
    """

    tracker = "TensorBoard"
    _writer: SummaryWriter

    def open(self, lines: Sequence[Mapping[str, Any]]) -> int:
        """See the base class."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import, and only this logger needs it

        events = self.folder / "tensorboard"
        steps = [shown(line, self.folder).step for line in lines[-1:]]
        first = step = 0
        is_new = not any(events.glob("events.out.tfevents.*"))
        if steps and not is_new:
            first, step = len(lines) - 1, steps[0]
            while first and shown(lines[first - 1], self.folder).step >= step:
                first -= 1
        self._writer = SummaryWriter(str(events), purge_step=step)
        if is_new:
            text = json.dumps(self.config, indent=2, default=str)
            self._writer.add_text("config", "\n".join(f"    {line}" for line in text.splitlines()))
        return first

    def show(self, number: int, line: Shown) -> None:
        """See the base class."""
        for name, value in line.numbers.items():
            self._writer.add_scalar(name, value, line.step)
        for name, paths in line.media.items():
            for path in paths:
                self._add_image(name if len(paths) == 1 else f"{name}/{path.stem}", path, line.step)

    def flush(self) -> None:
        """See the base class."""
        self._writer.flush()

    def finish(self) -> None:
        """See the base class."""
        self._writer.close()

    def _add_image(self, name: str, path: Path, step: int) -> None:
        """Add a file as it is; a video as an animated GIF, TensorBoard's only kind, for which torch wants moviepy."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        content = _gif(path) if path.suffix == ".mp4" else path.read_bytes()
        with Image.open(io.BytesIO(content)) as picture:
            width, height = picture.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        writer = self._writer._get_file_writer()
        writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)


def _gif(path: Path) -> bytes:
    with av.open(str(path)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0)
    return buffer.getvalue()
