"""Weights & Biases beside the log file."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from utils.files import own_file, write_text
from utils.reading.opening import read_regular
from utils.tracked_logger import Shown, TrackedLogger
from utils.wandb_files import next_step

MODES = ("online", "offline", "disabled")
LONGEST_ID = 128  # bytes
LONGEST = {"name": 128, "group": 128, "tag": 64}  # characters that wandb takes


class WandbLogger(TrackedLogger):
    """Sends the lines of the log to Weights & Biases as well; its own step is the line's number in the file.

    A resumed run continues the wandb run whose id lies in the folder. Offline, each attempt leaves a folder of its own
    in ``wandb/``, and ``wandb sync`` joins them.
    """

    tracker = "wandb"

    def __init__(
        self,
        folder: str | Path,
        filename: str = "logs.json",
        project: str = "world-models",
        entity: str | None = None,
        name: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        mode: str = "online",
    ) -> None:
        """Log to a run's folder; the wandb run begins with the first line.

        Args:
            folder: Of the run; the wandb files and the run's id live there, too.
            filename: Of the log.
            project: Of the wandb run, like the next four.
            entity: None means the user's default.
            name: None means the folder.
            group: None means environment and method or planner.
            tags: Beside the options that were chosen.
            mode: Online, offline (nothing leaves the machine), disabled.

        Raises:
            ValueError: If the mode is another.
        """
        super().__init__(folder, filename)
        if mode not in MODES:
            raise ValueError(f"logger.mode must be one of {', '.join(MODES)}, got {mode!r}")
        self._mode, self._tags = mode, tags
        self._chosen = {"project": project, "entity": entity, "name": name, "group": group}
        self._run: Any = None
        self._id_file = self.folder / "wandb_run_id"
        own_file(self._id_file)

    def open(self, lines: Sequence[Mapping[str, Any]]) -> int:
        """See the base class."""
        import wandb  # takes a second to import, and only this logger needs it

        run_id = self._run_id()
        # what earlier attempts have left here is sent or will be; a server knows its own
        prefix = "offline-run" if self._mode == "online" else "*run"
        kept = next_step(sorted(self.folder.glob(f"wandb/{prefix}-*-{run_id}")))
        about = labels(self.config, self.folder) | {key: value for key, value in self._chosen.items() if value}
        about["tags"] = [*about["tags"], *self._tags]
        self._run = wandb.init(
            **about,
            mode=self._mode,  # type: ignore[arg-type]
            id=run_id,
            resume="allow",
            reinit="create_new",  # a sweep runs one after the other in one process
            dir=str(self.folder),
            config=dict(self.config),
        )
        for group, step in (("train", "train/step"), ("val", "train/step"), ("plan", "plan/iteration")):
            self._run.define_metric(f"{group}/*", step_metric=step)
        return max(kept, self._run.step)

    def show(self, number: int, line: Shown) -> None:
        """See the base class."""
        import wandb

        values: dict[str, Any] = {line.step_name: line.step, **line.numbers}
        for name, paths in line.media.items():
            values[name] = [
                wandb.Video(str(path), caption=path.stem, format="mp4")
                if path.suffix == ".mp4"
                else wandb.Image(str(path), caption=path.stem)
                for path in paths
            ]
        self._run.log(values, step=number, commit=True)

    def finish(self) -> None:
        """See the base class."""
        self._run.finish()

    def _run_id(self) -> str:
        known = read_regular(self._id_file, LONGEST_ID).decode().strip() if self._id_file.exists() else ""
        if not known:
            known = uuid.uuid4().hex[:8]
            write_text(self._id_file, known)
        return known


def labels(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Describe a run by its folder and by the options that were chosen for it, as arguments of ``wandb.init``."""
    folder = folder.resolve()
    inside = folder.is_relative_to(Path.cwd()) and folder != Path.cwd()
    name = str(folder.relative_to(Path.cwd())) if inside else "/".join(folder.parts[-3:])
    choices = dict(HydraConfig.get().runtime.choices) if HydraConfig.initialized() else {}
    kind, deciding = ("train", "method") if "method" in config else ("plan", "planner")
    options = ("env", deciding, "objective", "encoder", "experiment")
    chosen = [str(choices[key]) for key in options if choices.get(key)]
    if not chosen and "env" in config:
        chosen = [str(config["env"]["name"])]
    return {
        "name": name[-LONGEST["name"] :],
        "group": "-".join([kind, *chosen[:2]])[: LONGEST["group"]],  # runs that differ in seeds and numbers only
        "tags": [tag[: LONGEST["tag"]] for tag in dict.fromkeys([kind, *chosen])],
        "job_type": kind,
    }
