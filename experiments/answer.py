"""The answer of a study: three sentences that follow from its numbers by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from experiments.estimate import BETTER, SAME, WORSE
from experiments.report import Goals, Pair, Planner, Row
from experiments.wording import listed, percent, percent_of, signed

NOTHING_YET = "No evaluation is finished yet."
MOST_NAMED = 3  # of more planners or models only the number is said


def answer(
    rows: Sequence[Row], pairs: Sequence[Pair], goals: Mapping[str, Goals], planners: Mapping[str, Planner]
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
    factors = [pair for pair in pairs if pair.of == "factors"]
    return [
        _best(best, goals, len({row.goals for row in rows}) > 1),
        *([_factors(factors)] if factors else []),
        _compared("models", [pair for pair in pairs if pair.of == "models"], "planner"),
        _planners([pair for pair in pairs if pair.of == "planners"], shown),
    ]


def _best(row: Row, goals: Mapping[str, Goals], several: bool) -> str:
    where = f" on {row.goals}" if several else ""
    if row.success.mean == 0:
        return f"No planner solves any of {row.episodes} episodes with any model."
    beside = [f"doing nothing solves {percent(row.floors.nothing.mean)}"] if row.floors.nothing else []
    if ceilings := goals[row.goals].ceilings:
        top = max(ceilings, key=lambda ceiling: ceiling.success.mean)
        beside.append(
            f"search with the simulator as its model {percent(top.success.mean)} of {top.episodes or row.episodes}"
        )
    solved = f"{percent_of(row.success)} of {row.episodes} episodes"
    text = f"Most is solved by {row.planner} with {row.model}{where}: {solved}"
    return f"{text}; {', '.join(beside)}." if beside else f"{text}."


def _factors(pairs: Sequence[Pair]) -> str:
    """Say which variation costs most, and how many cannot be told from none."""
    worst = min(pairs, key=lambda pair: pair.difference.mean)
    same = sum(pair.verdict == SAME for pair in pairs)
    return (
        f"Of all variations {worst.first} costs most: {signed(worst.difference.mean)} points with {worst.with_}; "
        f"{same} of {len(pairs)} differences from {worst.second} are not distinguishable."
    )


def _compared(what: str, pairs: Sequence[Pair], shared: str) -> str:
    """Write a clause for each two that differ somewhere, and one for those that differ nowhere."""
    if not pairs:
        return f"There are no two {what} to compare."
    shared = "comparison" if len({pair.goals for pair in pairs}) > 1 else shared
    clauses: list[str] = []
    alike: list[str] = []
    for first, second in dict.fromkeys((pair.first, pair.second) for pair in pairs):
        own = [pair for pair in pairs if (pair.first, pair.second) == (first, second)]
        verdicts = [_verdict(verdict, own, shared) for verdict in (BETTER, WORSE, SAME)]
        clause = f"{first} against {second} is {listed([text for text in verdicts if text])}"
        (alike if all(pair.verdict == SAME for pair in own) else clauses).append(clause)
    if len(alike) > 1:
        said = f"none of {len(alike)} other" if clauses else f"None of {len(alike)}"
        alike = [f"{said} pairs of {what} is distinguishable with any {shared}"]
    return f"{'; '.join([*clauses, *alike])}."


def _verdict(verdict: str, pairs: Sequence[Pair], shared: str) -> str:
    """Say with what a verdict holds: by name if it is a clear one and holds with few, else by number."""
    own = [pair for pair in pairs if pair.verdict == verdict]
    if not own:
        return ""
    if verdict != SAME and len(own) <= MOST_NAMED:
        return f"{verdict} with {listed([_named(pair, shared) for pair in own])}"
    if len(own) == len(pairs) == 1:
        return f"{verdict} with {own[0].with_}"
    if len(own) == len(pairs):
        return f"{verdict} with {'any of' if verdict == SAME else 'all'} {len(own)} {shared}s"
    return f"{verdict} with {len(own)} of {len(pairs)} {shared}s"


def _named(pair: Pair, shared: str) -> str:
    where = f" on {pair.goals}" if shared == "comparison" else ""
    return f"{pair.with_}{where} ({signed(pair.difference.mean)} points)"


def _planners(pairs: Sequence[Pair], rows: Sequence[Row]) -> str:
    """Compare the planners, and say what one of the first two costs in the other's terms."""
    names = list(dict.fromkeys(row.planner for row in rows))
    if len(names) < 2:
        return _compared("planners", pairs, "model")
    first, second = (pairs[0].first, pairs[0].second) if pairs else (names[0], names[1])
    costs = [_cost(rows, name) for name in (first, second)]
    for key, unit in (("tflop", "TFLOP"), ("rollouts", "imagined rollouts"), ("seconds", "planning seconds")):
        one, other = costs[0][key], costs[1][key]
        if one and other:
            ratio = f"er episode {first} takes {one / other:.2g} times the {unit} of {second}."
            return f"{_compared('planners', pairs, 'model')[:-1]}; p{ratio}" if pairs else f"P{ratio}"
    return _compared("planners", pairs, "model")


def _cost(rows: Sequence[Row], planner: str) -> dict[str, float]:
    """Mean cost of a planner over models, 0 where a row does not know it."""
    own = [row.cost for row in rows if row.planner == planner]
    values = {
        "tflop": [cost.tflop.total for cost in own],
        "rollouts": [cost.rollouts for cost in own],
        "seconds": [cost.planning_seconds for cost in own],
    }
    return {key: sum(v or 0.0 for v in each) / len(each) if all(each) and each else 0.0 for key, each in values.items()}
