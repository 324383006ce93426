"""The demo's tables and findings as plain text."""

from __future__ import annotations

from collections.abc import Sequence

from demo.scores import Gap, Score

TITLES = (
    "planner", "model", "solved", "95 % interval", "doing nothing", "begin solved", "to base (paired)",
    "planning s/episode", "rollouts/episode",
)  # fmt: skip
ERROR_TITLES = ("one-step visual error", "data set windows", "where the base's plans lead", "ratio")


def as_text(scores: Sequence[Score], gaps: Sequence[Gap]) -> str:
    """Both tables, and what they say."""
    success = _aligned([TITLES, *(_success(score) for score in scores)])
    errors = _aligned([ERROR_TITLES, *(_error(gap) for gap in gaps)])
    return "\n".join([*success, "", *errors, "", *findings(scores, gaps)])


def findings(scores: Sequence[Score], gaps: Sequence[Gap]) -> list[str]:
    """What the numbers say, whichever way they point."""
    sentences = []
    base = next(g for g in gaps if g.model == "base")
    control = next((g for g in gaps if g.model == "control"), base)
    for gap in gaps:
        if gap.model not in ("base", "control"):
            change = gap.planner[0] / control.planner[0]
            sentences.append(
                f"{gap.model}: the error where plans lead is {change:.2f} times that of the control "
                f"({gap.planner[0] / base.planner[0]:.2f} times the base's)."
            )
    for score in scores:
        if score.difference is not None:
            _, low, high = score.difference
            verdict = "better than" if low > 0 else "worse than" if high < 0 else "not distinguishable from"
            sentences.append(f"{score.planner}: {score.model} is {verdict} the base at {score.episodes} episodes.")
    return sentences


def _success(s: Score) -> tuple[str, ...]:
    change = "" if s.difference is None else "{:+.0f} [{:+.0f}, {:+.0f}]".format(*(100 * d for d in s.difference))
    return (
        s.planner,
        s.model,
        f"{100 * s.success:.0f} % of {s.episodes}",
        f"{100 * s.low:.0f} - {100 * s.high:.0f}",
        "" if s.nothing is None else "{:.0f} % [{:.0f} - {:.0f}]".format(*(100 * rate for rate in s.nothing)),
        "" if s.begun is None else f"{100 * s.begun:.0f} %",
        change,
        f"{s.seconds:.2f}",
        f"{s.evaluations:.0f}",
    )


def _error(g: Gap) -> tuple[str, ...]:
    return g.model, "{:.4f} +- {:.4f}".format(*g.dataset), "{:.4f} +- {:.4f}".format(*g.planner), f"{g.ratio:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
