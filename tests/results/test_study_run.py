"""The whole study, in miniature."""

import json

import pytest

from launch.jobs import run_jobs
from launch.provenance import Provenance
from results.jobs import Study
from results.report import Report
from tests.results.test_study import study
from utils.revision import revision

SHORT = ["training.epochs=1", "training.max_batches=3", "training.val_batches=1", "training.latent_cache=none"]


@pytest.mark.slow
def test_a_miniature_study_runs_to_its_report_and_is_not_run_again(tmp_path):
    config = study(tmp_path).config | {"seeds": [0, 1], "n_evals": 4}
    collect = [text for text in config["collect"] if not text.startswith("n_rollout")] + ["n_rollout=20"]
    replay = ["method.tasks=random_state", "replay_buffer_frequency=2", "gd_opt_steps=2"]
    finetune = {name: [o if isinstance(o, str) else replay for o in own] for name, own in config["finetune"].items()}
    finetune["common"] = [*finetune["common"], *SHORT]
    planners = {"gd": ["planner.opt_steps=2"], "mpc_gd": ["planner.sub_planner.opt_steps=2", "planner.max_iter=2"]}
    curve = {"GD": {"overrides": ["planner=mpc_gd", "planner.max_iter=1"], "evals": {2: [], 4: []}}}
    config |= {
        "collect": collect,
        "pretrain": [*config["pretrain"], *SHORT],
        "finetune": finetune,
        "evaluate": config["evaluate"] | {"planners": planners},
        "budgets": {"models": ["base", "online"], "planners": curve},
    }
    small = Study(config, tmp_path)
    jobs = small.jobs()
    assert len(jobs) == 1 + 2 * 5 + 2 + 2 * 5 * 2 + 2 * 2 * 2
    results = run_jobs(jobs, tmp_path / "stages", 1)  # a second worker would load torch once more
    report = Report(small, results, {}, Provenance.read(tmp_path / "stages", results))
    report.write()
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert next(r for r in numbers["budgets"] if r["rollouts"] == 4)["own"]["online"]["evaluations"] == 4
    assert numbers["made"]["environment"]["revision"] == revision()
    assert numbers["cost"]["mpc_gd"]["evaluations"] <= 2 * 3
    assert (tmp_path / "results.md").read_text().count("\n| online_adversarial |") == 1
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "stages").glob("*.json")}
    assert run_jobs(small.jobs(), tmp_path / "stages", 1) == results
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "stages").glob("*.json")}
