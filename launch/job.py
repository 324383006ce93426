"""A piece of a study's work."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Job:
    """A piece of work whose JSON result is kept.

    Attributes:
        name: Unique; also that of its result and its log file.
        run: Picklable function of ``arguments``; returns something JSON can hold.
        arguments: Of ``run``; what JSON can hold.
        after: Names of the jobs that must be done first.
        label: What jobs that take about as long have in common.
    """

    name: str
    run: Callable[..., Any]
    arguments: Mapping[str, Any]
    after: Sequence[str] = field(default_factory=tuple)
    label: str = ""

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for a kept result to be used again."""
        return {"function": self.run.__qualname__, "arguments": json.loads(json.dumps(self.arguments))}
