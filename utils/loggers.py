"""Where numbers go: always a JSON-lines file, and Weights & Biases when asked for."""

from __future__ import annotations

import json
import math
import os
import uuid
from pathlib import Path
from typing import Any


class JsonLinesLogger:
    """One JSON object a line; a resumed run continues the file without gap or repetition.

    Args:
        folder: of the run. filename: within it.
    """

    def __init__(self, folder: str | Path, filename: str = "logs.json") -> None:
        self.path = Path(folder) / filename
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def log(self, values: dict[str, Any]) -> None:
        """Append one object and hand it to the operating system at once. NaN and infinity become null."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(values)) + "\n")

    def position(self) -> int:
        """Bytes written so far; a saved state remembers it."""
        return self.path.stat().st_size if self.path.exists() else 0

    def rewind(self, position: int) -> None:
        """Forget what was written after a saved state; a file that is shorter than that is left alone."""
        if self.position() > position:
            os.truncate(self.path, position)

    def close(self) -> None:
        """Nothing is held open."""


class WandbLogger(JsonLinesLogger):
    """The same lines, sent to Weights & Biases as well.

    Args:
        folder: of the run; its wandb files and run id live there too, so a resumed run continues the same wandb run.
        project, entity, name: of the wandb run. mode: "online" or "offline" (nothing leaves the machine).
    """

    def __init__(
        self,
        folder: str | Path,
        filename: str = "logs.json",
        project: str = "world-models",
        entity: str | None = None,
        name: str | None = None,
        mode: str = "online",
    ) -> None:
        super().__init__(folder, filename)
        import wandb  # takes a second to import, and only this logger needs it

        id_file = Path(folder) / "wandb_run_id"
        run_id = id_file.read_text().strip() if id_file.exists() else uuid.uuid4().hex[:8]
        id_file.write_text(run_id)
        self._run = wandb.init(
            project=project,
            entity=entity,
            name=name,
            mode=mode,  # type: ignore[arg-type]  # wandb itself refuses others, and names them
            id=run_id,
            resume="allow",
            dir=str(folder),
        )

    def log(self, values: dict[str, Any]) -> None:
        """See the base class."""
        super().log(values)
        self._run.log({key: value for key, value in values.items() if isinstance(value, int | float)})

    def close(self) -> None:
        """Finish the wandb run."""
        self._run.finish()


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """All objects of a log; a last line that a kill cut off is left out."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
