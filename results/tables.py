"""The study's tables, as markdown."""

from __future__ import annotations

from results.scores import Estimate, Scores
from utils.collected import markdown_table


def success_table(scores: Scores) -> str:
    """Planners by models: mean, 95 % interval, and the range over training seeds."""
    study = scores.study
    head = ["planner", *study.models]
    rows = [[name, *(_percent(scores.success(model, name)) for model in study.models)] for name in study.planners]
    return markdown_table(head, rows)


def difference_table(scores: Scores) -> str:
    """What each finetuning adds, against the control (as many steps of plain training) and against the base."""
    study = scores.study
    pairs = [(model, "control") for model in study.finetuned if model != "control"]
    pairs += [("online_adversarial", "online")] if "online_adversarial" in study.finetuned else []
    pairs += [(model, "base") for model in study.finetuned]
    head = ["planner", *(f"{model} - {to}" for model, to in pairs)]
    rows = [[name, *(_change(scores.difference(*pair, name)) for pair in pairs)] for name in study.planners]
    return markdown_table(head, rows)


def cost_table(scores: Scores) -> str:
    """What a planner takes per episode."""
    rows = []
    for name in scores.study.planners:
        cost = scores.cost(name, scores.study.models)
        rows.append([name, f"{cost.seconds:.3f}", f"{cost.evaluations:.0f}", f"{cost.gradients:.0f}"])
    head = ["planner", "planning s / episode, median", "rollouts / episode, mean", "of these differentiated"]
    return markdown_table(head, rows)


def budget_table(scores: Scores) -> str:
    """Success at equal budgets."""
    budgets = scores.study.config["budgets"]
    rows = []
    for planner, setting in budgets["planners"].items():
        for budget in setting["evals"]:
            cost = scores.cost(planner, budgets["models"], budget)
            cells = [_percent(scores.success(model, planner, budget)) for model in budgets["models"]]
            rows.append([planner, str(budget), f"{cost.evaluations:.0f}", f"{cost.seconds:.3f}", *cells])
    return markdown_table(
        ["planner", "rollouts / plan", "rollouts / episode", "planning s / episode", *budgets["models"]], rows
    )


def gap_table(scores: Scores) -> str:
    """One-step error where the data set goes and where the base's plans lead."""
    rows = []
    for model in scores.study.models:
        data, plans = scores.error(model, "dataset"), scores.error(model, "planner")
        rows.append([model, _error(data), _error(plans), f"{plans.mean / data.mean:.1f}"])
    return markdown_table(["model", "data set windows", "where the base's plans lead", "ratio"], rows)


def _percent(of: Estimate) -> str:
    each = f"{100 * min(of.each):.0f}..{100 * max(of.each):.0f}"
    return f"{100 * of.mean:.0f} [{100 * of.low:.0f}, {100 * of.high:.0f}] ({each})"


def _change(of: Estimate) -> str:
    # a digit more where a whole number would hide the sign
    values = (of.mean, of.low, of.high)
    mean, low, high = (f"{100 * v:+.1f}" if 0 < abs(v) < 0.005 else f"{100 * v:+.0f}" for v in values)
    text = f"{mean} [{low}, {high}]"
    return f"**{text}**" if of.is_clear else text


def _error(of: Estimate) -> str:
    return f"{of.mean:.4f} [{of.low:.4f}, {of.high:.4f}]"
