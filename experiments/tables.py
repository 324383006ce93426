"""A report as tables in markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from statistics import fmean, median

from experiments.factors_table import NOTE, factors_table
from experiments.report import Cost, Pair, Report, Row
from experiments.wording import FLOORS, cell, error, number, percent_of, points, significant
from utils.machine import as_duration
from utils.pages import markdown_table

MOST_ROWS = 12  # of which the costs are shown one by one


def as_markdown(report: Report, figures: Sequence[str] = ()) -> str:
    """Write everything; ``figures``: lines that show some."""
    several = len(report.goals) > 1
    parts = [_made(report), "\n".join(f"- {sentence}" for sentence in report.answer)]
    for name in (name for name, goals in report.goals.items() if goals.control is None):
        parts += [f"### Success{f', {name}' if several else ''}, %", _success_note(report), success(report, name)]
    if varied := factors_table(report):
        parts += ["### Success by factor of variation, %", NOTE, markdown_table(*varied)]
    parts += figures
    for of, title in (("models", "Differences of models"), ("planners", "Differences of planners")):
        if table := differences(report, of):
            parts += [
                f"### {title}, percentage points",
                f"On the same episodes (and seeds); bold where one is better.{_chance(report, of)}",
                table,
            ]
    parts += ["### What planning takes", _cost_note(report), cost(report)]
    if table := curves(report):
        parts += ["### Success at equal budgets", "Replanned as the planners' settings say.", table]
    if report.gap:
        parts += ["### Error of the models", "One-step visual error.", gap(report)]
    return "\n\n".join(parts)


def _chance(report: Report, of: str) -> str:
    count = sum(pair.of == of for pair in report.pairs)
    return f" Of these {count} comparisons about {0.05 * count:.0f} may be bold by chance." if count >= 10 else ""


def success(report: Report, goals: str) -> str:
    """Planners by models, with the floors that belong to a planner's budget, and the ceilings below."""
    rows = [row for row in report.rows if row.goals == goals and report.planners[row.planner].curve is None]
    models = [name for name in report.models if any(row.model == name for row in rows)]
    floors = [key for key in FLOORS if any(getattr(row.floors, key) is not None for row in rows)]
    lines = []
    for planner in dict.fromkeys(row.planner for row in rows):
        own = {row.model: row for row in rows if row.planner == planner}
        first = next(iter(own.values()))
        found = [cell(own[model].success) if model in own else "" for model in models]
        lines.append([planner, *(cell(getattr(first.floors, key)) for key in floors), *found])
    for each in report.goals[goals].ceilings:
        name = f"{each.planner}, the simulator as its model ({each.episodes or report.goals[goals].episodes} episodes)"
        found = [cell(each.success) if model == each.model else "" for model in models]
        lines.append([name, *("" for _ in floors), *found])
    return markdown_table(["planner", *(FLOORS[key] for key in floors), *models], lines)


def differences(report: Report, of: str) -> str:
    """Compared pairs by the planner (model) that they share; "" if there is none."""
    pairs = [pair for pair in report.pairs if pair.of == of]
    shared = list(dict.fromkeys((pair.with_, pair.goals) for pair in pairs))
    names = list(dict.fromkeys((pair.first, pair.second) for pair in pairs))
    found = {(pair.first, pair.second, pair.with_, pair.goals): pair for pair in pairs}
    lines = []
    for with_, goals in shared:
        own = [found.get((*name, with_, goals)) for name in names]
        label = f"{with_}, {goals}" if len(report.goals) > 1 else with_
        lines.append([label, *("" if pair is None else _difference(pair) for pair in own)])
    head = "planner" if of == "models" else "model"
    return markdown_table([head, *(f"{a} - {b}" for a, b in names)], lines) if pairs else ""


def _difference(pair: Pair) -> str:
    p = "" if pair.p is None else f", p {pair.p:.2g}"
    return points(pair.difference, pair.verdict in ("better", "worse")) + p


def cost(report: Report) -> str:
    """What each planner takes per episode, of many rows all models together."""
    rows = [row for row in report.rows if report.planners[row.planner].curve is None]
    if len(rows) <= MOST_ROWS:
        own = [[row.planner, row.model, *goals_cell(report, row), *_cost_cells([row.cost])] for row in rows]
        return _known_columns(["planner", "model", *(["goals"] if len(report.goals) > 1 else []), *COSTS], own)
    planners = dict.fromkeys(row.planner for row in rows)
    lines = [[name, *_cost_cells([row.cost for row in rows if row.planner == name])] for name in planners]
    return _known_columns(["planner", *COSTS], lines)


def goals_cell(report: Report, row: Row) -> list[str]:
    """Name the goals of a row, in a column that there is only where a report has several."""
    return [row.goals] if len(report.goals) > 1 else []


COSTS = ("planning s", "rollouts", "of these differentiated", "TFLOP", "simulation s", "peak memory, GB")


def _cost_cells(costs: Sequence[Cost]) -> list[str]:
    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return fmean(known) if known else None

    seconds = [each.planning_seconds for each in costs if each.planning_seconds is not None]
    return [
        number(median(seconds), 3) if seconds else "",
        number(mean([each.rollouts for each in costs])),
        number(mean([each.gradients for each in costs])),
        significant(mean([each.tflop.total for each in costs])),
        number(mean([each.simulation_seconds for each in costs]), 3),
        number(mean([each.peak_memory_gb for each in costs]), 2),
    ]


def _known_columns(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table without the columns in which nothing is known."""
    shown = [place for place in range(len(head)) if any(line[place] for line in lines)]
    return markdown_table([head[place] for place in shown], [[line[place] for place in shown] for line in lines])


def curves(report: Report) -> str:
    """Success at equal budgets; "" if there are none."""
    points = {name: planner for name, planner in report.planners.items() if planner.curve is not None}
    rows = [row for row in report.rows if row.planner in points]
    models = list(dict.fromkeys(row.model for row in rows))
    lines = []
    for name, planner in points.items():
        own = {row.model: row for row in rows if row.planner == name}
        spent = _cost_cells([row.cost for row in own.values()])
        solved = [cell(own[model].success) if model in own else "" for model in models]
        lines.append([planner.curve or "", str(planner.budget), spent[1], spent[0], *solved])
    head = ["planner", "rollouts / plan", "rollouts / episode", "planning s / episode", *models]
    return markdown_table(head, lines) if lines else ""


def gap(report: Report) -> str:
    """One-step error where the data set goes, and where the base's plans lead."""
    lines = [[each.model, error(each.dataset), error(each.planner), number(each.ratio, 1)] for each in report.gap]
    bases = {each.base for each in report.gap}
    where = f"where the plans of {next(iter(bases))} lead" if len(bases) == 1 else "where the base's plans lead"
    return markdown_table(["model", "data set windows", where, "ratio"], lines)


def summary(report: Report) -> str:
    """What a first page says: of curves their best points, else models by planners, with the errors of the models."""
    if any(planner.curve for planner in report.planners.values()):
        return _best_of_curves(report)
    planners = list(dict.fromkeys(row.planner for row in report.rows))
    solved = {(row.model, row.planner): percent_of(row.success) for row in report.rows}
    errors = {each.model: f"{each.planner.mean:.3f}" for each in report.gap}
    lines = [
        [model, *(solved.get((model, planner), "") for planner in planners), errors.get(model, "")]
        for model in report.models
    ]
    head = ["model", *(f"{planner} solves" for planner in planners), "error where the base's plans lead"]
    made = f"{report.rows[0].episodes} episodes, revision {report.made.revision}, {report.made.date}"
    return f"{_known_columns(head, lines)}\n\n({made}; in brackets 95 % intervals over episodes, of one training seed.)"


def _best_of_curves(report: Report) -> str:
    """What the best budget of each planner solves with the last model of the curves."""
    rows = [row for row in report.rows if report.planners[row.planner].curve is not None]
    own = [row for row in rows if row.model == rows[-1].model]
    parts = []
    for curve in dict.fromkeys(report.planners[row.planner].curve for row in own):
        best = max((row for row in own if report.planners[row.planner].curve == curve), key=lambda r: r.success.mean)
        parts.append(f"{curve} solves {percent_of(best.success)} with {number(best.cost.rollouts)}")
    made = f"revision {report.made.revision}, {report.made.date}"
    text = (
        "With the best of the budgets tried for each planner, replanning after every block, with the model "
        f"{own[0].model}: {', '.join(parts)} imagined rollouts per episode ({made})."
    )
    return textwrap.fill(text, 120)


def _success_note(report: Report) -> str:
    several = any(len(row.seeds) > 1 or len(row.success.each) > 1 for row in report.rows)
    over = "Mean over training seeds and episodes, [95 % interval over both], (range over seeds)."
    return over if several else "[95 % interval over episodes], of one training seed."


def _cost_note(report: Report) -> str:
    many = sum(report.planners[row.planner].curve is None for row in report.rows) > MOST_ROWS
    over = ", all models together (of seconds the median)" if many else ""
    return f"Per episode{over}; seconds are wall clock with other stages beside."


def _made(report: Report) -> str:
    made, protocol = report.made, report.protocol
    hashes = [f"`{goals.hash[:16]}`" for goals in report.goals.values() if goals.hash]
    parts = [f"`{made.command}`, {made.date}, revision {made.revision}"]
    if made.seconds is not None:
        workers = f" with {made.num_workers} stage{'s' * (made.num_workers > 1)} at a time" if made.num_workers else ""
        parts.append(f"{as_duration(made.seconds)}{workers}")
    parts += [made.machine] if made.machine else []
    parts += [", ".join(f"{name} {version}" for name, version in made.versions.items())] if made.versions else []
    text = f"{'; '.join(parts)}. {_episodes(report)}"
    text += f" (SHA-256 of starts, goals and layouts {', '.join(hashes)})" if hashes else ""
    if protocol.unsolved_starts_only is not None:
        text += f", unsolved_starts_only={str(protocol.unsolved_starts_only).lower()}"
    return f"{text}.{f' {made.note}' if made.note else ''}"


def _episodes(report: Report) -> str:
    counts = sorted({row.episodes for row in report.rows})
    many = " or ".join(map(str, counts)) or "No"
    return f"{many} {report.protocol.seed_rule or 'episodes, the same for every model and planner'}"
