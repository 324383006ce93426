"""A diagnosis as a few lines to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 12  # failed episodes whose evidence is listed


def account(found: Mapping[str, Any]) -> str:
    """Tell what ``diagnosed`` has found."""
    failed = len(found["sorted"])
    lines = [f"{len(found['episodes'])} episodes looked at, {failed} of them failed"]
    if failed:
        lines.append("why they failed: " + ", ".join(f"{name} {count}" for name, count in found["failures"].items()))
    lines += [f"  episode {each['episode']}: {each['why']}: {each['evidence']}" for each in found["sorted"][:SHOWN]]
    if failed > SHOWN:
        lines.append(f"  ... and {failed - SHOWN} more in diagnosis.json")
    lines.append("error of the model after 1 ... T blocks, in the unit of the objective:")
    for kind, steps in found["error_by_step"].items():
        lines.append(f"  {kind:8} {'no data set is here' if steps is None else _row(steps)}")
    costs = found["exploitation"]
    imagined, true = (_mean(costs[name]) for name in ("imagined", "true"))
    lines.append(f"exploitation: the first plans cost {imagined} as imagined and {true} as they come true")
    ranks = ", ".join(f"{_number(each)} at the {moment}" for moment, each in costs["rank_correlation"].items())
    lines.append(f"rank correlation of both over candidates of the search: {ranks}")
    lines.append(f"gradient norm by block: {_row(found['gradient_norm'])}")
    lines.append(
        f"latents along real paths: curvature {_number(found['curvature'])}, rank correlation with steps "
        f"{_number(found['spearman_steps'])}, with true distance {_number(found['spearman_state'])}"
    )
    return "\n".join(lines) + "\n"


def _row(means: Sequence[Mapping[str, float | None]]) -> str:
    return " ".join(f"{_number(each):>8}" for each in means)


def _number(mean: Mapping[str, float | None]) -> str:
    return "-" if mean["mean"] is None else f"{mean['mean']:.3g}"


def _mean(values: Sequence[float | None]) -> str:
    finite = [value for value in values if value is not None]
    return f"{sum(finite) / len(finite):.3g}" if finite else "-"
