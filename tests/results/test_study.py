"""The study's stages, and what it makes of their results."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from datasets.collecting.config import CollectConfig
from experiments.stages import composed
from launch.command_line import plain
from launch.provenance import Provenance
from planning.config import PlanConfig
from planning.saved_evaluation import TARGETS
from results.jobs import Run, Study
from results.numbers import Numbers
from results.page import markdown, summary
from results.publish import FOLDER
from results.report import Report
from results.scores import goals_hash
from tests.builders import REPOSITORY
from tests.published import figure_digest, read_block
from training.config import TrainConfig
from utils.pages import digest, read_numbers


def study(folder=Path("x"), *overrides) -> Study:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = plain(compose("results_wall", overrides=list(overrides)))
    return Study(config, folder)


@pytest.fixture(scope="module")
def jobs():
    return study().jobs()


def test_every_planner_that_searches_is_in_the_table():
    group = {path.stem for path in (REPOSITORY / "conf" / "planner").glob("*.yaml")}
    group -= {"random", "mpc_random", "policy", "mpc_policy"}
    chosen = {choice(text) for job in study().jobs() for text in job.arguments.get("overrides", [])}
    assert group <= chosen


def choice(text: str) -> str:
    key, _, value = text.partition("=")
    return value if key == "planner" else ""


def test_hydra_knows_every_override_of_every_stage():
    for job in study(Path("x"), "seeds=[0]").jobs():
        stages = {"collect": (CollectConfig, "collect"), "train": (TrainConfig, "train")}
        schema, name = stages.get(job.run.__name__, (PlanConfig, "plan_wall"))
        if name != "plan_wall" or job.name.startswith("base"):  # for other models only the folders differ
            composed(schema, name, job.arguments["overrides"])


def test_names_are_unique_and_wait_for_what_they_use(jobs):
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    for number, job in enumerate(jobs):
        assert set(job.after) <= set(names[:number])
        used = [text.split("=")[1] for text in job.arguments["overrides"] if text.startswith("ckpt_path=")]
        if job.run.__name__ == "evaluate":
            assert [Path(path).name for path in used] == list(job.after)


def test_all_evaluations_share_goals_and_episodes_and_seeds_share_the_data(jobs):
    shared, data = set(), set()
    for job in jobs:
        settings = dict(text.split("=", 1) for text in job.arguments["overrides"])
        data.add(settings.get("data_path") or settings["env.dataset.data_path"])
        if job.run.__name__ == "evaluate":
            shared.add((settings["seed"], settings["n_evals"], settings.get("goal_source")))
    assert len(shared) == len(data) == 1


def test_models_are_trained_once_per_seed_and_finetuned_alike(jobs):
    trainings = [job for job in jobs if job.run.__name__ == "train"]
    assert len(trainings) == 5 * 3
    steps = set()
    for job in trainings[:5]:
        training = composed(TrainConfig, "train", job.arguments["overrides"]).training
        if not job.name.startswith("base"):
            assert job.after == [f"base_s{training.seed}"]
            steps.add((training.epochs, training.max_batches, training.batch_size, training.predictor_lr))
    assert len(steps) == 1


def test_the_curve_has_six_budgets_for_each_planner_and_names_them(jobs):
    for planner in ("GD", "L-BFGS", "CEM"):
        runs = [run for run in study().curve if run.planner == planner and run.model == "base" and run.seed == 0]
        assert len({run.budget for run in runs}) == 6
        by_name = {job.name: job for job in jobs}
        for run in runs:
            config = composed(PlanConfig, "plan_wall", by_name[run.name].arguments["overrides"]).planner.settings
            assert config["sub_planner"]["budget_evals"] == run.budget
            assert config["n_taken_actions"] == 1


def made_up(of: Study, rates: dict[str, float]) -> dict:
    """Results in which a model solves a share of the episodes, the same ones for every planner."""
    generator, episodes = np.random.default_rng(0), of.config["n_evals"]
    luck = generator.random((len(of.seeds), episodes))
    results = {}
    for run in (*of.table, *of.curve):
        solved = luck[of.seeds.index(run.seed)] < rates[run.model]
        results[run.name] = {
            "solved_at": solved.astype(int).tolist(),
            "unsolved_starts_only": True,
            "solved_at_start_rate": 0.0,
            **{f"do_nothing_rate{end}": rate for end, rate in (("", 0.02), ("_low", 0.01), ("_high", 0.07))},
            "planning_seconds_per_episode": 0.01 * (run.budget or 50),
            "model_evaluations_per_episode": float(run.budget or 50),
            "gradient_evaluations_per_episode": 7.0,
        }
        (of.folder / run.name).mkdir(parents=True, exist_ok=True)
        with (of.folder / run.name / TARGETS).open("wb") as file:
            np.savez(
                file, seeds=np.arange(episodes), states=np.ones((episodes, 2)), goal_states=np.zeros((episodes, 2))
            )
    for seed in of.seeds:
        errors = {"dataset": {"visual_mse": [0.1] * 20}, "planner": {"visual_mse": [0.2, 0.4] * 10}}
        results[f"gap_s{seed}"] = dict.fromkeys(of.models, errors)
    return results


RATES = {"base": 0.5, "control": 0.5, "online": 0.8, "adversarial": 0.3, "online_adversarial": 0.51}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    of = study(tmp_path_factory.mktemp("study"))
    return Report(of, made_up(of, RATES), {"torch": "9.9"}, Provenance(["abc"], "2026-11-30", 9.0))


def test_what_is_better_or_worse_is_said(report):
    better, worse, same = (
        report.scores.difference(model, "control", "mpc_gd")
        for model in ("online", "adversarial", "online_adversarial")
    )
    assert better.low > 0 and better.is_clear
    assert worse.high < 0 and worse.is_clear
    assert not same.is_clear
    success = report.scores.success("online", "mpc_gd")
    assert success.low < 0.8 < success.high
    assert min(success.each) <= success.mean <= max(success.each)
    first, second = report.numbers.findings[:2]
    assert "online against the control: +28.7 points" in first
    assert "mpc_gd" in first.split("worse")[0]
    assert "better with none" in second and "mpc_gd" in second.split("worse")[1]


def test_everything_is_written(report):
    report.write()
    folder = report.study.folder
    text = (folder / "results.md").read_text()
    assert "unsolved_starts_only=true (0 % begin solved)" in text and "| planner | doing nothing | base |" in text
    assert "| mpc_gd | 2 [1, 7] |" in text
    for name in (*report.study.planners, *report.study.models, report.goals[:16], "torch 9.9"):
        assert name in text
    rows = [line for line in text.splitlines() if line.startswith("| mpc_gd |")]
    assert len(rows) == 3 and "**" in rows[1]
    numbers = json.loads((folder / "report.json").read_text())
    assert numbers["success"]["online"]["mpc_gd"]["mean"] == pytest.approx(
        np.mean([report.results[Run("online", s, "mpc_gd").name]["solved_at"] for s in report.study.seeds])
    )
    assert next(r for r in numbers["budgets"] if r["rollouts"] == 8)["own"]["base"]["evaluations"] == 8
    for name in ("success.png", "budgets.png"):
        assert (folder / name).stat().st_size > 10_000


def test_publishing_keeps_what_stands_around_the_tables_and_makes_all_from_the_numbers_kept(report, tmp_path):
    between = "# Before\n\n<!-- begin generated: {0} -->\nof last year\n<!-- end generated: {0} -->\n\nAfter.\n"
    (tmp_path / "docs").mkdir()
    pages = {"results_wall": tmp_path / "docs" / "results.md", "results_wall_summary": tmp_path / "README.md"}
    for name, page in pages.items():
        page.write_text(between.format(name))
    for _ in range(2):
        report.publish(tmp_path)
        for name, page in pages.items():
            before, after = between.format(name).split("of last year")
            assert page.read_text().startswith(before) and page.read_text().endswith(after)
            assert "of last year" not in page.read_text()
    published = read_numbers(tmp_path / FOLDER / "results_wall.json")
    numbers = Numbers.of_json(published)
    assert read_block(pages["results_wall"], "results_wall") == markdown(numbers, "images/results_")
    assert markdown(numbers, "") == markdown(report.numbers, "")
    assert read_block(pages["results_wall_summary"], "results_wall_summary") == summary(numbers)
    for name in ("success", "budgets"):
        assert figure_digest(tmp_path / "docs" / "images" / f"results_{name}.png") == digest(published)
    pages["results_wall"].write_text("no markers")
    with pytest.raises(ValueError, match="needs the two lines"):
        report.publish(tmp_path)


def test_numbers_of_several_revisions_are_not_published(report, tmp_path, monkeypatch):
    for revisions in (["abc", "def"], ["abc-dirty"], ["unknown"]):
        monkeypatch.setattr(report, "provenance", Provenance(revisions, "2026-11-30", 9.0))
        with pytest.raises(ValueError, match=r"run at revision .*; published numbers must come from one committed"):
            report.publish(tmp_path)
    assert not list(tmp_path.iterdir())


def test_other_goals_are_an_error_that_names_both(report, tmp_path):
    one, other = (report.study.folder / run.name for run in report.study.table[:2])
    assert goals_hash([one, other]) == report.goals
    with np.load(other / TARGETS) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["goal_states"] = changed["goal_states"] + 1e-6
    with (other / TARGETS).open("wb") as file:
        np.savez(file, **changed)
    with pytest.raises(ValueError, match=f"{one.name} and .*{other.name} met different goals"):
        goals_hash([one, other])
