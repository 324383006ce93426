"""A study's folder as the engine leaves it, with numbers drawn at random: for tests of the page."""

import csv
import hashlib
import json

import numpy as np
from PIL import Image, ImageDraw

from experiments.inputs import digests
from utils.pages import digest

FRAMESKIP, SIDE = 5, 65
MODELS = {"base": 0.45, "online": 0.75, "adversarial": 0.6}
PLANNERS = {"GD": (1.1, 230, 230, 0.9), "L-BFGS": (0.5, 143, 143, 0.55), "CEM": (1.6, 1578, 0, 6.1)}
GOALS = {"25 steps": 25, "50 steps": 50}


def rate(mean, spread=0.12):
    return {"mean": mean, "low": max(0.0, mean - spread), "high": min(1.0, mean + spread), "each": [mean]}


def mean(value, spread=0.2):
    return {"mean": value, "low": value * (1 - spread), "high": value * (1 + spread)}


def make_study(folder, models=tuple(MODELS), planners=tuple(PLANNERS), goals=tuple(GOALS), episodes=6, frames=True):
    """Write ``report.json``, ``episodes.csv`` and runs; returns the report."""
    generator = np.random.default_rng(0)
    runs, rows, lines, why = [], [], [], []
    for goal in goals:
        for m, model in enumerate(models):
            for p, planner in enumerate(planners):
                name = f"runs/{m}_{p}_{len(runs)}"
                chance = 0.25 + 0.2 * (m % 3) + 0.12 * (p % 3) - 0.1 * list(goals).index(goal)
                solved = make_run(folder / name, episodes, chance, generator, has_decoder=m != 2, frames=frames)
                runs.append({"model": model, "planner": planner, "goals": goal, "seed": 0, "folder": name})
                rows.append(row(model, planner, goal, chance, p, episodes))
                lines += [csv_line(runs[-1], n, at) for n, at in enumerate(solved)]
                why.append(diagnosis(runs[-1], solved, generator))
    report = described(models, planners, goals, rows, runs, why, episodes)
    with (folder / "episodes.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(lines[0]))
        table.writeheader()
        table.writerows(lines)
    write_report(folder, report)
    return report


def write_report(folder, report):
    report = {key: value for key, value in report.items() if key != "digest"}
    paths = [folder / run["folder"] / "episodes.npz" for run in report["inspect"]]
    report["inputs"] = digests(folder, paths)
    (folder / "report.json").write_text(json.dumps(report | {"digest": digest(report)}))


def row(model, planner, goal, chance, p, episodes):
    seconds, rollouts, gradients, tflop = list(PLANNERS.values())[p % 3]
    parts = {"encoder": 0.05 * tflop, "forward": 0.4 * tflop, "backward": 0.55 * tflop, "total": tflop}
    cost = {
        "rollouts": rollouts,
        "gradients": gradients,
        "tflop": parts,
        "planning_seconds": seconds * (1 + 0.1 * len(model)),
    }
    return {
        "model": model,
        "planner": planner,
        "goals": goal,
        "seeds": [0],
        "episodes": episodes,
        "success": rate(chance),
        "final": rate(chance - 0.06),
        "steps_to_success": {"median": 20, "low": 15, "high": 30},
        "cost": cost | {"simulation_seconds": 0.02, "peak_memory_gb": None},
    }


def csv_line(run, n, solved_at):
    shared = {key: run[key] for key in ("model", "planner", "goals", "seed")} | {"episode": n, "episode_hash": f"{n:x}"}
    end = {"solved": solved_at is not None, "final": solved_at is not None, "failure": "" if solved_at else "search"}
    return shared | {"solved_at_step": solved_at or -1} | end


def diagnosis(run, solved, generator):
    failed = [n for n, at in enumerate(solved) if at is None]
    grid = np.linspace(-1, 1, 15)
    bowl = (grid[:, None] - 0.2) ** 2 + (grid[None] + 0.1) ** 2 * (1 + grid[:, None] ** 2)
    imagined = generator.uniform(0.05, 1, len(solved))
    steps = range(1, 6)
    causes = ("model", "search", "distance", "out of reach")
    return {key: run[key] for key in ("model", "planner", "goals", "seed")} | {
        "error_by_step": {
            "dataset": [mean(0.02 * t) for t in steps] if run["model"] == "base" else None,
            "planned": [mean(0.05 * t**1.3) for t in steps],
            "random": [mean(0.03 * t) for t in steps],
        },
        "exploitation": {
            "imagined": imagined.tolist(),
            "true": (imagined * generator.uniform(0.8, 3, len(solved))).tolist(),
            "rank_correlation": {"start": mean(0.9, 0.05), "middle": mean(0.6), "end": mean(0.3)},
        },
        "gradient_norm": [mean(2.0 / t) for t in steps],
        "curvature": mean(0.12) if failed else {"mean": None, "low": None, "high": None},
        "spearman_steps": mean(0.8, 0.1),
        "spearman_state": mean(0.9, 0.05),
        "plane": [
            {
                "episode": 0,
                "x": grid.tolist(),
                "y": grid.tolist(),
                "model": (bowl + 0.1).tolist(),
                "simulator": (bowl.T + 0.3).tolist(),
                "points": [{"name": "plan", "x": 0.1, "y": -0.2}, {"name": "recorded", "x": -0.6, "y": 0.5}],
            }
        ],
        "failures": {cause: sum(n % 4 == i for n in failed) for i, cause in enumerate(causes)},
        "sorted": [{"episode": n, "why": causes[n % 4], "evidence": "imagined 0.1, came true 0.9"} for n in failed],
    }


def described(models, planners, goals, rows, runs, why, episodes):
    first, second = list(models)[:2] if len(models) > 1 else (models[0], models[0])
    pair = {
        "of": "models",
        "first": second,
        "second": first,
        "goals": goals[0],
        "difference": {**rate(0.2), "low": 0.05},
    }
    verdicts = ("better", "not distinguishable", "worse")
    pairs = [
        {
            **pair,
            "with": planner,
            "only_first": 9,
            "only_second": 2,
            "p": 0.065 / (i + 1) ** 4,
            "verdict": verdicts[i % 3],
        }
        for i, planner in enumerate(planners)
    ]
    return {
        "schema": 1,
        "title": "Does planning by gradient beat search on the Wall?",
        "asked": "Three models of the Wall, finetuned in different ways, were asked to reach goals 25 and 50 raw steps "
        "away, by two gradient planners and by CEM, on the same episodes.",
        "answer": [
            "L-BFGS with the model finetuned online solves most: 75 % [63, 87].",
            "It needs 0.6 s and 0.55 TFLOP per episode, a tenth of what CEM computes.",
            "Between L-BFGS and GD no difference can be told at 50 episodes.",
        ],
        "unfinished": [],
        "made": {
            "date": "2026-11-30",
            "revision": "abcdef0",
            "command": "python -m experiments compare env=wall",
            "versions": {"python": "3.11.7", "torch": "2.15.0"},
            "machine": "AMD EPYC, 2 cores",
            "seconds": 812.4,
            "num_workers": 2,
        },
        "protocol": {
            "env": "wall",
            "seed": 99,
            "seed_rule": "episode i has the environment seed 100 + 7 i",
            "unsolved_starts_only": True,
            "interval": "Wilson for one training seed; crossed bootstrap over seeds and episodes for several.",
            "latched": "Solved: inside the goal region at the end of any MPC iteration.",
            "final": "Inside the goal region at the end of the budget.",
        },
        "goals": {
            name: {
                "goal_source": "random_state",
                "goal_H": GOALS.get(name, 25) // FRAMESKIP,
                "raw_steps": GOALS.get(name, 25),
                "budget_steps": 50,
                "episodes": episodes,
                "hash": hashlib.sha256(name.encode()).hexdigest(),
                "floors": {"nothing": rate(0.0, 0.03), "random": rate(0.08, 0.05), "expert": None},
                "ceilings": [{"planner": planners[-1], "model": models[0], "success": rate(0.96, 0.04), "episodes": 2}],
            }
            for name in goals
        },
        "models": {
            name: {
                "base": None if i == 0 else models[0],
                "seeds": [0],
                "checkpoints": [f"outputs/{i}"],
                "trained_by": None,
            }
            for i, name in enumerate(models)
        },
        "planners": {
            name: {"overrides": ["planner=mpc_gd"], "kind": "search" if name == "CEM" else "gradient", "horizon": 5}
            for name in planners
        },
        "rows": rows,
        "pairs": pairs,
        "gap": [
            {
                "model": name,
                "base": models[0],
                "dataset": mean(0.01),
                "planner": mean(0.17 / (i + 1)),
                "ratio": 17 / (i + 1),
            }
            for i, name in enumerate(models)
        ],
        "why": why,
        "inspect": runs,
        "commands": [
            "python train.py experiment=wall_resnet",
            "python plan.py --config-name plan_wall.yaml ckpt_path=outputs/0",
        ],
    }


def make_run(folder, episodes, chance, generator, has_decoder=True, frames=True, iterations=10):
    """Write a run's ``episodes.npz`` and its frames; returns the raw step at which each episode was solved, or None."""
    folder.mkdir(parents=True)
    steps, horizon = iterations * FRAMESKIP, 5
    starts, goals = (
        generator.uniform([8, 8], [26, 57], (episodes, 2)),
        generator.uniform([38, 8], [57, 57], (episodes, 2)),
    )
    reaches = generator.uniform(size=episodes) < chance
    share = np.minimum(1, np.linspace(0, 1.4, steps + 1))[None] * np.where(reaches, 1, 0.6)[:, None]
    states = starts[:, None] + share[..., None] * (goals - starts)[:, None]
    states[..., 1] += 6 * np.sin(3 * share)
    distances = np.linalg.norm(states - goals[:, None], axis=-1)
    ends = np.arange(iterations + 1) * FRAMESKIP
    inside = distances < 8
    solved = [next((int(end) for end in ends[1:] if row[end]), None) for row in inside]
    planned = np.array([[at is None or end < at for end in ends[:-1]] for at in solved])
    actions = np.diff(states, axis=1) / 2
    plans = np.where(
        planned[..., None, None],
        generator.normal(size=(episodes, iterations, horizon * FRAMESKIP, 2)) * 0.3 + 0.6,
        np.nan,
    )
    trace = np.where(planned[..., None], 2 * np.exp(-np.arange(11) / 4) + 0.2, np.nan) * generator.uniform(
        0.8, 1.2, (episodes, 1, 1)
    )
    np.savez_compressed(
        folder / "episodes.npz",
        format=1,
        frameskip=FRAMESKIP,
        iteration_ends=ends,
        states=states,
        actions=actions,
        distances=distances,
        inside=inside,
        planned=planned,
        plans=plans,
        cost_before=trace[..., 0],
        cost_after=trace[..., -1],
        trace_steps=np.tile(np.arange(11) * 5, (iterations, 1)),
        trace=trace,
        evaluations=np.where(planned, 51, 0),
        gradients=np.where(planned, 50, 0),
        planning_seconds=np.where(planned, 0.1, 0.0),
        simulation_seconds=np.full(iterations, 0.01),
        imagined_distance=trace[..., -1],
        true_distance=trace[..., -1] * 1.4,
    )
    if frames:
        draw(folder, states, goals, solved, planned, has_decoder)
    return solved


def draw(folder, states, goals, solved, planned, has_decoder):
    (folder / "inspection").mkdir()
    content = (folder / "episodes.npz").read_bytes()
    index = {"format": 1, "of": hashlib.sha256(content).hexdigest(), "size": SIDE, "every": 1, "decoder": has_decoder}
    index |= {"episodes": list(range(len(states))), "taken": [1] * planned.shape[1]}
    (folder / "inspection" / "index.json").write_text(json.dumps(index))
    for n, (path, goal, at) in enumerate(zip(states, goals, solved, strict=True)):
        last = at or len(path) - 1
        sheet([*path[: last + 1], goal], folder / "inspection" / f"real_{n}.webp", lossless=True)
        if has_decoder:
            imagined = [place + 2 for end in range(0, last, FRAMESKIP) for place in (path[end + FRAMESKIP], goal)]
            sheet(imagined, folder / "inspection" / f"imagined_{n}.webp", quality=60)
        places = {"agent": (path / SIDE).round(4).tolist(), "goal": {"agent": (goal / SIDE).round(4).tolist()}}
        (folder / "inspection" / f"places_{n}.json").write_text(json.dumps(places))


def sheet(places, path, **options):
    image = Image.new("RGB", (SIDE, SIDE * len(places)), "white")
    pen = ImageDraw.Draw(image)
    for i, (x, y) in enumerate(places):
        pen.rectangle((4, 4 + i * SIDE, 60, 60 + i * SIDE), outline="black")
        pen.rectangle((29, 4 + i * SIDE, 35, 26 + i * SIDE), fill="black")
        pen.rectangle((29, 34 + i * SIDE, 35, 60 + i * SIDE), fill="black")
        pen.ellipse((x - 3, y - 3 + i * SIDE, x + 3, y + 3 + i * SIDE), fill="red")
    image.save(path, **options)
