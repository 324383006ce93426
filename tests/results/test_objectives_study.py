"""The study behind docs/objectives.md: its stages, its numbers, and that the default is what they say."""

import pytest
from hydra import compose, initialize_config_dir

from datasets.collecting.config import CollectConfig
from experiments.stages import composed
from launch.command_line import plain
from planning.config import PlanConfig
from planning.objectives import REPLANNED, GoalDistance
from results.objectives import NUMBERS, PAGE, Study, largest_losses, tables
from tests.builders import REPOSITORY
from tests.published import read_block
from training.config import TrainConfig
from utils.pages import read_numbers


@pytest.fixture(scope="module")
def study() -> Study:
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return Study(plain(compose("results_objectives")))


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return read_numbers(REPOSITORY / NUMBERS)["rows"]


def test_hydra_knows_every_override_and_stages_wait_for_what_they_use(study):
    jobs = study.jobs()
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    seen: set[str] = set()
    for number, job in enumerate(jobs):
        assert set(job.after) <= set(names[:number])
        settings = {text for text in job.arguments["overrides"] if not text.startswith(("run_dir", "ckpt_path"))}
        if settings - seen:  # each setting once, in the first stage that has it
            seen |= settings
            schema = {"collect": CollectConfig, "train": TrainConfig}.get(job.run.__name__, PlanConfig)
            composed(schema, job.arguments.get("config_name", job.run.__name__), job.arguments["overrides"])


def test_the_page_shows_the_numbers_that_are_kept(rows):
    assert read_block(REPOSITORY / PAGE, "objectives") == tables(rows)


def test_the_kept_numbers_are_those_of_the_configured_evaluations(study, rows):
    found = [(row["round"], row["task"], row["planner"], row["objective"]) for row in rows if row["planner"]]
    assert found == [(run.round, run.task, run.planner, run.objective) for run in study.runs()]
    for row in rows:
        settings = study.config["rounds"][row["round"]]
        assert (row["seed"], len(row["solved_at"])) == (settings["seed"], settings["n_evals"])


def test_the_choice_is_not_made_on_the_reported_episodes(study):
    rounds = study.config["rounds"]
    assert rounds["choice"]["seed"] != rounds["report"]["seed"]


def row(task: str, planner: str, objective: str, solved: int, kind: str = "choice") -> dict:
    return {
        "round": kind,
        "task": task,
        "planner": planner,
        "objective": objective,
        "solved_at": [1] * solved + [0] * (10 - solved),
    }


def test_the_largest_loss_is_on_the_worst_task_and_pools_the_planners_of_a_kind():
    kept = [
        *(row("wall", planner, "a", 9) for planner in ("mpc_gd", "mpc_gd_lbfgs")),
        row("wall", "mpc_gd", "b", 6),
        row("wall", "mpc_gd_lbfgs", "b", 8),
        *(row("pusht", planner, "a", 2) for planner in ("mpc_gd", "mpc_gd_lbfgs")),
        *(row("pusht", planner, "b", 3) for planner in ("mpc_gd", "mpc_gd_lbfgs")),
        row("wall", "mpc_gd_lbfgs", "only one planner", 10),
        row("wall", "mpc_cem", "a", 5),
        row("wall", "mpc_cem", "last, whole plans", 10),
        row("wall", "mpc_cem", "a", 10, kind="report"),
    ]
    losses = largest_losses(kept)
    assert losses["gradient"] == pytest.approx({"a": 10, "b": 20})
    assert losses["sampling"] == pytest.approx({"a": 0})


def test_the_default_is_the_measured_choice(study, rows):
    chosen = GoalDistance(**REPLANNED)
    names = [name for name, of in study.config["objectives"].items() if of == overrides_of(chosen)]
    assert len(names) == 1
    for kind, losses in largest_losses(rows).items():
        assert losses[names[0]] <= min(losses.values()) + 5, kind


def overrides_of(objective: GoalDistance) -> list[str]:
    settings = {key: value for key, value in objective.settings.items() if key != "first_frame"}
    return [f"objective={objective.mode}", *(f"objective.{key}={value:g}" for key, value in settings.items())]
