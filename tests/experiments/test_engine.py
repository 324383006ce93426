"""A small study from its first stage to its page."""

import csv
import json
import shlex

import pytest

from experiments.collected import collect
from experiments.inputs import changed
from experiments.report import FILENAME, Report
from experiments.run import COLUMNS, Runner, findings_of_stages
from tests.experiments import tiny


def report(folder):
    return Report.read(folder / "study" / FILENAME)


def test_everything_is_written_and_the_numbers_are_those_of_the_stages(finished):
    found, folder = report(finished), finished / "study"
    assert [(row.planner, row.model) for row in found.rows] == [("gd", "a"), ("gd", "b"), ("cem", "a"), ("cem", "b")]
    for row in found.rows:
        kept = json.loads((folder / "stages" / f"{row.model}_s0_{row.planner}.json").read_text())["result"]
        assert row.success.mean == kept["success_rate"] and row.cost.rollouts == kept["model_evaluations_per_episode"]
        assert row.floors.random.mean == kept["random_rate"]
    (ceiling,) = found.goals["as configured"].ceilings
    assert (ceiling.planner, ceiling.model, ceiling.episodes) == ("cem", "a", 2)
    assert {planner.kind for planner in found.planners.values()} == {"gradient", "search"}
    assert all(planner.horizon == 2 for planner in found.planners.values())
    assert not found.unfinished and len(found.pairs) == 4 and len(found.answer) == 3
    assert all(shlex.split(line)[:2] == ["python", "plan.py"] for line in found.commands)
    assert all((folder / each.folder / "results.json").exists() for each in found.inspect)
    rows = list(csv.reader((folder / "episodes.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 1 + 4 * 4 + 2
    assert found.answer[0] in (folder / "report.md").read_text()
    for name in ("success.png", "success.svg", "seconds.png", "rollouts.svg"):
        assert (folder / "figures" / name).stat().st_size > 5000


def test_a_second_call_runs_nothing_and_one_more_planner_only_that(finished, monkeypatch):
    begun = []

    def run_jobs(jobs, folder, workers, finished, cluster):
        from launch.jobs import kept_results

        results = kept_results(jobs, folder)
        begun.append([job.name for job in jobs if job.name not in results])
        return results

    monkeypatch.setattr("experiments.run.run_jobs", run_jobs)
    before = report(finished)
    again = tiny.run(finished)
    assert begun == [[]] and again.rows == before.rows and again.pairs == before.pairs
    more = Runner(tiny.study(finished, planners=tiny.PLANNERS | {"icem": ["planner.opt_steps=1"]}), ["x"])
    assert sorted(job.name for job in more.jobs if not (finished / "study/stages" / f"{job.name}.json").exists()) == [
        "a_s0_icem", "a_s0_icem__the_simulator_as_its_model", "b_s0_icem",
    ]  # fmt: skip


def test_results_do_not_depend_on_how_many_workers_there_are_or_in_what_order_stages_run(finished, tmp_path):
    tiny.write_models(tmp_path)
    alone, findings = tiny.study(tmp_path), None
    results = {job.name: job.run(**job.arguments) for job in reversed(alone.jobs())}
    findings = findings_of_stages(alone, results)
    beside = findings_of_stages(
        tiny.study(finished),
        {path.stem: json.loads(path.read_text())["result"] for path in (finished / "study" / "stages").glob("*.json")},
    )
    for one, other in zip(findings.results, beside.results, strict=True):
        assert (one.model, one.planner, one.episodes) == (other.model, other.planner, other.episodes)
        assert one.solved_at_step == other.solved_at_step
        assert one.lists["state_dist_at_end"] == other.lists["state_dist_at_end"]
        assert one.cost["rollouts"] == other.cost["rollouts"]


def test_a_model_that_was_trained_further_is_not_given_its_old_numbers(finished):
    weights = next((finished / "a" / "checkpoints").glob("model_*"))
    before = weights.read_bytes()
    try:
        weights.write_bytes(before + b" ")
        with pytest.raises(ValueError, match=r"a: these weights are not those that the results in .*study are of"):
            Runner(tiny.study(finished), ["x"]).run()
    finally:
        weights.write_bytes(before)


def test_what_is_finished_is_reported_while_the_rest_runs(finished, tmp_path):
    runner = Runner(tiny.study(tmp_path), ["x"])
    stages = {
        path.stem: json.loads(path.read_text())["result"] for path in (finished / "study" / "stages").glob("*.json")
    }
    (tmp_path / "study" / "stages").mkdir(parents=True)
    for name in ("a_s0_gd", "b_s0_gd"):
        source = finished / "study" / "stages" / f"{name}.json"
        (tmp_path / "study" / "stages" / f"{name}.json").write_text(source.read_text())
    runner.write({name: stages[name] for name in ("a_s0_gd", "b_s0_gd")}, whole=False)
    found = report(tmp_path)
    assert len(found.rows) == 2 and found.unfinished[:2] == ["a_s0_cem", "b_s0_cem"] and len(found.pairs) == 1


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("a_s0_gd/results.json", '"n_evals": 4', '"n_evals": 5'),
        ("episodes.csv", "a,gd,as configured,0,0,", "a,gd,x,0,0,"),
    ],
)
def test_a_number_that_was_changed_after_the_report_is_named(finished, name, old, new):
    found, folder = report(finished), finished / "study"
    path = folder / name
    assert changed(folder, found.inputs) == []
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert changed(folder, found.inputs) == [name]
    path.write_text(text)


def test_a_report_that_cannot_be_written_in_between_does_not_end_the_study(finished, tmp_path, monkeypatch, caplog):
    runner = Runner(tiny.study(finished, folder=str(tmp_path / "study")), ["x"])

    def broken(folder):
        raise OSError("no space left")

    monkeypatch.setattr("experiments.run.write_page", broken)
    runner._finished({})
    assert "the report is not up to date: no space left" in caplog.text


def test_a_stage_that_fails_leaves_a_report_of_the_others(finished, tmp_path, monkeypatch):
    runner = Runner(tiny.study(finished, folder=str(tmp_path / "study")), ["x"])

    def run_jobs(jobs, kept, *_):
        job = next(job for job in jobs if job.name == "a_s0_gd")
        stage = json.loads((finished / "study" / "stages" / "a_s0_gd.json").read_text())
        kept.mkdir(parents=True)
        (kept / "a_s0_gd.json").write_text(json.dumps(stage | job.identity))
        raise ValueError("stage a_s0_cem failed")

    monkeypatch.setattr("experiments.run.run_jobs", run_jobs)
    with pytest.raises(ValueError, match="stage a_s0_cem failed"):
        runner.run()
    found = report(tmp_path)
    assert [(row.model, row.planner) for row in found.rows] == [("a", "gd")] and "a_s0_cem" in found.unfinished


def test_an_input_of_other_episodes_is_refused(finished):
    runner = Runner(tiny.study(finished), ["x"])
    stages = {
        path.stem: json.loads(path.read_text())["result"] for path in (finished / "study" / "stages").glob("*.json")
    }
    for name in ("episode_hash", "episode_set_hash"):
        if name in stages["a_s0_gd"]:
            stages["a_s0_gd"][name] = ["o"] * 4 if name == "episode_hash" else "other"
    with pytest.raises(ValueError, match=r"a \(seed 0\) with gd and b \(seed 0\) with gd met different episodes"):
        runner.write(stages, whole=False)


def test_runs_that_were_made_before_are_a_study_too(finished, tmp_path):
    for model, planner in (("a", "gd"), ("b", "gd"), ("a", "cem")):
        member(finished, tmp_path / f"{planner}-{model}", model, planner)
    found = collect([tmp_path], tmp_path)
    ours = {(row.model, row.planner): row.success for row in report(finished).rows}
    assert {(row.model, row.planner): row.success for row in found.rows} == {
        key: ours[key] for key in (("a", "gd"), ("b", "gd"), ("a", "cem"))
    }
    assert [(pair.of, pair.first, pair.second) for pair in found.pairs] == [
        ("models", "b", "a"),
        ("planners", "gd", "cem"),
    ]
    with pytest.raises(ValueError, match="there is no run"):
        collect([tmp_path / "none"], tmp_path)


def member(finished, folder, model, planner):
    """A run folder as a sweep leaves it behind."""
    folder.mkdir()
    (folder / "results.json").write_text((finished / "study" / f"{model}_s0_{planner}" / "results.json").read_text())
    overrides = [f"planner={planner}", f"ckpt_path={finished / model}", "n_evals=4"]
    record = {
        "overrides": overrides,
        "command": "python plan.py",
        "config": {"env": {"name": "wall"}, "ckpt_path": str(finished / model), "seed": 99},
        "environment": {"revision": "abc", "torch": "9"},
        "attempts": [{"status": "finished", "started": "2026-01-01T00:00:00"}],
    }
    (folder / "run.json").write_text(json.dumps(record | {"status": "finished"}))


@pytest.mark.slow
def test_a_study_that_trains_keeps_the_outcomes_of_its_seeds(tmp_path):
    short = [
        "training.epochs=1",
        "training.max_batches=3",
        "training.val_batches=1",
        "training.num_reconstruct_samples=0",
    ]
    changed = {
        "folder": str(tmp_path / "trained"),
        "num_workers": 1,
        "collect": ["env=wall", "n_rollout=20", "image_size=16", "image_dtype=uint8"],
        "models": {
            "plain": {"overrides": ["experiment=wall_state", short]},
            "plain + more": {"base": "plain", "overrides": ["experiment=wall_state", short]},
        },
        "planners": {"few": ["planner=gd", "planner.opt_steps=2"]},
        "evaluate": ["n_plot_samples=0", "goal_source=random_state"],
        "ceiling": False,
        "gap_planner": "few",
        "gap_tasks": 3,
        "why_evals": 3,
    }
    first = tiny.run(tmp_path, **changed)
    assert [(gap.model, gap.base) for gap in first.gap] == [("plain", "plain"), ("plain + more", "plain")]
    assert first.rows[0].seeds == [0] and {why["model"] for why in first.why} == {"plain", "plain + more"}
    assert first.protocol.unsolved_starts_only and first.models["plain + more"].base == "plain"
    both = tiny.run(tmp_path, **changed, seeds=[1])
    assert [row.seeds for row in both.rows] == [[0, 1], [0, 1]], "the other seed was kept"
    assert {path.name for path in (tmp_path / "trained" / "outcomes").iterdir()} >= {"seed_0.csv", "seed_1.json"}
    assert both.rows[0].success.each[0] == first.rows[0].success.mean
