"""The answer of a study: three sentences that follow from its numbers by rule."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.estimate import SAME
from experiments.report import Goals, Pair, Planner, Rate, Row
from experiments.wording import listed, percent, percent_of

NOTHING_YET = "No evaluation is finished yet."


def answer(
    rows: Sequence[Row], pairs: Sequence[Pair], goals: dict[str, Goals], planners: dict[str, Planner]
) -> list[str]:
    """Say what is best, what the models differ in, and what the planners differ in.

    Args:
        rows: Of the report.
        pairs: Likewise.
        goals: Likewise.
        planners: Likewise; curves are left out, they are not compared.
    """
    shown = [row for row in rows if planners[row.planner].curve is None] or list(rows)
    if not shown:
        return [NOTHING_YET]
    best = max(shown, key=lambda row: (row.success.mean, -(row.cost.planning_seconds or 0.0)))
    return [
        _best(best, goals, len({row.goals for row in rows}) > 1),
        _compared("models", [pair for pair in pairs if pair.of == "models"], "planner"),
        _planners([pair for pair in pairs if pair.of == "planners"], shown),
    ]


def _best(row: Row, goals: dict[str, Goals], several: bool) -> str:
    where = f" on {row.goals}" if several else ""
    beside = [f"doing nothing solves {percent(row.floors.nothing.mean)}"] if row.floors.nothing else []
    ceilings = goals[row.goals].ceilings
    if ceilings:
        top = max(ceilings, key=lambda ceiling: ceiling.success.mean)
        beside.append(f"search with the simulator as its model {percent(top.success.mean)} of {top.episodes}")
    text = (
        f"Most is solved by {row.planner} with {row.model}{where}: {percent_of(row.success)} of {row.episodes} episodes"
    )
    return f"{text}; {', '.join(beside)}." if beside else f"{text}."


def _compared(what: str, pairs: Sequence[Pair], shared: str) -> str:
    """One clause for each two, counting with how many planners (models) one is better."""
    if not pairs:
        return f"There are no two {what} to compare."
    clauses = []
    for first, second in dict.fromkeys((pair.first, pair.second) for pair in pairs):
        own = [pair for pair in pairs if (pair.first, pair.second) == (first, second)]
        told = [
            f"{pair.verdict} with {pair.with_} ({_points(pair.difference)})" for pair in own if pair.verdict != SAME
        ]
        same = len(own) - len(told)
        rest = [f"{SAME} with {'all' if same > 1 else 'the'} {same if same > 1 else 'other'}" if told else SAME]
        if told and same > 1:
            rest = [f"{SAME} with {same} others"]
        elif not told and len(own) > 1:
            rest = [f"{SAME} with any of {len(own)} {shared}s"]
        clauses.append(f"{first} against {second} is {listed([*told, *(rest if same else [])])}")
    return f"{'; '.join(clauses)}."


def _planners(pairs: Sequence[Pair], rows: Sequence[Row]) -> str:
    text = _compared("planners", pairs, "model")
    if not pairs:
        return text
    first, second = pairs[0].first, pairs[0].second
    costs = [_cost(rows, name) for name in (first, second)]
    for key, unit in (("tflop", "TFLOP"), ("rollouts", "imagined rollouts"), ("seconds", "planning seconds")):
        one, other = costs[0][key], costs[1][key]
        if one and other:
            return f"{text[:-1]}; per episode {first} takes {one / other:.2g} times the {unit} of {second}."
    return text


def _cost(rows: Sequence[Row], planner: str) -> dict[str, float]:
    """Mean cost of a planner over models, 0 where a row does not know it."""
    own = [row.cost for row in rows if row.planner == planner]
    values = {
        "tflop": [cost.tflop.total for cost in own],
        "rollouts": [cost.rollouts for cost in own],
        "seconds": [cost.planning_seconds for cost in own],
    }
    return {key: sum(v or 0.0 for v in each) / len(each) if all(each) and each else 0.0 for key, each in values.items()}


def _points(rate: Rate) -> str:
    return f"{100 * rate.mean:+.0f} points"
