"""What a study runs, what it keeps of it, and what its tables say."""

from dataclasses import replace

import pytest

from experiments.config import StudyConfig
from experiments.outcomes import Outcomes
from experiments.publish import FOLDER, PAGE, publish, refuse_unpublishable
from experiments.stages import composed
from experiments.study import Study
from experiments.tables import Tables
from launch.jobs import run_jobs
from launch.provenance import Provenance
from planning.config import PlanConfig
from training.config import TrainConfig
from utils.reading.opening import FileError
from utils.schema import SettingError, parsed

SHORT = ["training.epochs=1", "training.max_batches=3", "training.val_batches=1", "training.num_reconstruct_samples=0"]
MORE = {"base": "plain", "overrides": ["experiment=wall_state", SHORT]}
CONFIG = {
    "env": "wall",
    "folder": "x",
    "seeds": [0, 1],
    "goals_seed": 99,
    "n_evals": 4,
    "num_workers": None,
    "publish": False,
    "collect": ["env=wall", "n_rollout=20", "image_size=16", "image_dtype=uint8"],
    "models": {
        "plain": {"overrides": ["experiment=wall_state", SHORT]},
        "plain + more": MORE,
    },
    "planners": {"few": ["planner=gd", "planner.opt_steps=2"], "fewer": ["planner=gd_lbfgs", "planner.opt_steps=2"]},
    "evaluate": ["n_plot_samples=0", "goal_source=random_state"],
    "cells": {
        "all": {"models": ["plain", "plain + more"], "planners": ["few"]},
        "short": {"models": ["plain"], "planners": ["fewer"], "n_evals": 2},
    },
    "gap_planner": "few",
    "compare": [["plain + more", "plain"]],
    "compare_planners": [["few", "fewer"]],
}


def config(**changed) -> StudyConfig:
    return parsed(StudyConfig, CONFIG | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"compare": [["plain", "plane"]]}, "compare: there is no 'plane'; there are plain, plain \\+ more"),
        ({"compare": [["plain"]]}, "compare must be pairs of names, got \\['plain'\\]"),
        ({"compare_planners": [["few", "x"]]}, "compare_planners: there is no 'x'"),
        ({"gap_planner": "cem"}, "gap_planner: there is no 'cem'; there are few, fewer"),
        ({"cells": {"a": {"models": ["plain"], "planners": ["x"]}}}, "cells.a.planners: there is no 'x'"),
        ({"models": {"a": {"base": "a", "overrides": []}}}, "models.a.base: there is no 'a'"),
        ({"seeds": []}, r"seeds must be at least one, each once, got \[\]"),
        ({"seeds": [1, 1]}, r"seeds must be at least one, each once, got \[1, 1\]"),
        (
            {"models": {"plain": {"base": "plain + more", "overrides": []}, "plain + more": MORE}},
            r"models.plain.base: plain <- plain \+ more <- plain is a circle; train one from scratch",
        ),
        (
            {"cells": CONFIG["cells"] | {"b": {"models": ["plain + more"], "planners": ["few"], "n_evals": 3}}},
            "cells.b.n_evals: 'few' has 3 episodes here and 4 in other cells; give one of them another name",
        ),
        (
            {"models": CONFIG["models"] | {"plain - more": MORE}},
            r"models: 'plain \+ more' and 'plain - more' would use the same files; rename one",
        ),
        ({"planners": CONFIG["planners"] | {"a | b": []}}, r"planners: 'a \| b' must not have a bar"),
        (
            {"cells": {"a": {"model": ["plain"]}}},
            "cells.a.model: there is no such setting; did you mean cells",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(changed, message):
    with pytest.raises((ValueError, SettingError), match=message):
        config(**changed)


def test_finetunings_wait_for_their_base_and_evaluations_for_their_model():
    jobs = {job.name: job for job in Study(config()).jobs()}
    assert len(jobs) == 1 + 2 * (2 + 3 + 1)
    assert jobs["plain___more_s1"].after == ["plain_s1"]
    assert jobs["plain___more_s1_few"].after == ["plain___more_s1"]
    assert jobs["gap_plain_s0"].after == ["plain_s0", "plain___more_s0"]
    assert "n_evals=2" in jobs["plain_s0_fewer"].arguments["overrides"]


def outcomes(seed: int, plain: list[int], more: list[int]) -> Outcomes:
    cost = {"seconds": 0.5, "evaluations": 8.0, "gradients": 4.0, "nothing": 0.25}
    return Outcomes(
        seed=seed,
        made={"date": "2026-01-01", "revision": "abc", "versions": "torch 9"},
        episodes={"few": "0123456789abcdef"},
        solved_at={"plain": {"few": plain, "fewer": more[:2]}, "plain + more": {"few": more}},
        cost={"plain": {"few": cost, "fewer": cost}, "plain + more": {"few": cost}},
        errors={"plain": {"plain": {"dataset": 0.1, "planner": 0.4}, "plain + more": {"dataset": 0.1, "planner": 0.2}}},
        training_seconds={"plain": 1.0, "plain + more": 2.0},
    )


def test_outcomes_come_back_as_they_were_written(tmp_path):
    both = [outcomes(seed, [-1, 5, -1, 0], [5, 10, 5, -1]) for seed in (0, 1)]
    for one in reversed(both):
        one.write(tmp_path)
    assert Outcomes.read(tmp_path) == both
    assert (tmp_path / "seed_1.csv").read_text().splitlines()[2:4] == ["1,5,10,10", "2,-1,,5"]
    (tmp_path / "seed_1.csv").unlink()
    with pytest.raises(FileError, match=r"seed_1.json and the .csv beside it are not a study's outcomes"):
        Outcomes.read(tmp_path)


def test_seeds_that_met_different_episodes_are_not_averaged(tmp_path):
    outcomes(0, [5], [5]).write(tmp_path)
    replace(outcomes(1, [5, 6], [5, 6]), episodes={"few": "other"}).write(tmp_path)
    with pytest.raises(FileError, match="seeds 0 and 1 met different episodes with few"):
        Outcomes.read(tmp_path)


def test_only_the_seeds_of_the_config_are_published_and_only_from_committed_code(tmp_path, monkeypatch):
    page = tmp_path / PAGE
    page.parent.mkdir()
    page.write_text("no markers")
    with pytest.raises(ValueError, match="needs the two lines"):
        refuse_unpublishable(tmp_path, config(), must_run=False)
    page.write_text("<!-- begin generated: x -->\n<!-- end generated: x -->")
    monkeypatch.setattr("experiments.publish.revision", lambda: "abc-dirty")
    refuse_unpublishable(tmp_path, config(), must_run=False)
    with pytest.raises(ValueError, match=r"publish=true: .* at revision abc-dirty, .*commit what has changed"):
        refuse_unpublishable(tmp_path, config(), must_run=True)
    for seed in (0, 1):
        outcomes(seed, [-1, 5], [5, 5]).write(tmp_path / "outcomes")
    publish(tmp_path, config(seeds=[1]), tmp_path / "outcomes")
    assert {path.name for path in (tmp_path / FOLDER / "x").iterdir()} == {"seed_1.csv", "seed_1.json"}
    assert "Training seeds 1; 4 episodes" in page.read_text()


def test_a_seed_may_be_run_at_a_later_revision_than_the_data_but_not_with_changed_files(tmp_path):
    Provenance(["abc", "def"], "2026-01-01", 1.0).require_committed(tmp_path)
    for code in ("def-dirty", "unknown"):
        with pytest.raises(ValueError, match=f"run at revision abc and {code}; .* must come from committed revisions"):
            Provenance(["abc", code], "2026-01-01", 1.0).require_committed(tmp_path)


def test_tables_count_an_episode_as_solved_from_its_first_step_on():
    tables = Tables(config(), [outcomes(seed, [-1, 5, -1, 0], [5, 10, 5, -1]) for seed in (0, 1)])
    rows = [line.split(" | ") for line in tables.success().splitlines()]
    assert rows[2][:2] == ["| doing nothing", "25"]
    assert rows[3][1].startswith("50 [") and rows[3][1].endswith("(50..50)")
    assert rows[4][1].startswith("75 [")
    assert tables.differences().splitlines()[2].startswith("| plain + more - plain | +25 [")
    # of the two episodes that both planners met one solves the second, the other both
    rows = tables.planner_differences().splitlines()
    assert rows[0] == "| model | few - fewer |" and len(rows) == 3 and rows[2].startswith("| plain | -50 [")
    assert "| few | 0.500 | 8 | 4 |" in tables.cost()
    assert "| plain | 0.1000 (0.1000..0.1000) | 0.4000 (0.4000..0.4000) |" in tables.errors()


def test_hydra_knows_every_override_of_the_recipe():
    recipe = composed(StudyConfig, "recipe_wall", ["seeds=[0]"])
    schemas, seen = {"train": TrainConfig, "evaluate": PlanConfig}, {"train": set(), "evaluate": set()}
    for job in Study(recipe).jobs():
        entry, overrides = job.run.__name__, job.arguments["overrides"]
        settings = tuple(o for o in overrides if not o.startswith(("ckpt_path", "run_dir")))
        if entry in seen and settings not in seen[entry]:
            seen[entry].add(settings)
            composed(schemas[entry], job.arguments.get("config_name", "train"), overrides)
    assert len(seen["evaluate"]) == len(recipe.planners)
    assert len(seen["train"]) == 5 + 4, "both bases are finetuned alike"


@pytest.mark.slow
def test_a_small_study_runs_to_its_report(tmp_path):
    study = Study(config(folder=str(tmp_path), seeds=[0]))
    results = run_jobs(study.jobs(), tmp_path / "stages", 2)
    found = Outcomes.of(study, 0, results, {"date": "d", "revision": "r", "versions": "v"})
    assert {m: list(p) for m, p in found.solved_at.items()} == {"plain": ["few", "fewer"], "plain + more": ["few"]}
    assert len(found.solved_at["plain"]["fewer"]) == 2 and len(found.solved_at["plain"]["few"]) == 4
    assert found.cost["plain"]["few"]["evaluations"] == 3
    found.write(tmp_path / "outcomes")
    assert "plain + more - plain" in Tables(study.config, Outcomes.read(tmp_path / "outcomes")).page()
    results[study.cells[0].name(0)]["episode_hash"][0] = "other"
    with pytest.raises(ValueError, match="plain \\+ more with few met other episodes than the rest"):
        Outcomes.of(study, 0, results, {})
