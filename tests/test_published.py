"""Tables and figures of README and docs are those of the numbers in ``docs/published``, of one run each."""

import re

import pytest

from experiments.choice import BLOCK, KINDS, STUDIES, largest_losses
from experiments.publish import PICTURED, blocks, choice, names, published, study_of
from experiments.report import Rate, Row
from planning.objectives import REPLANNED, GoalDistance
from tests.builders import REPOSITORY
from tests.published import figure_digest, read_block
from utils.pages import digest, read_numbers, write_block, write_numbers

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
NAMES = names(REPOSITORY)
FIGURES = [(name, figure) for name, drawn in PICTURED.items() for figure in drawn if name in NAMES]
GENERATED = [found for page in PAGES for found in re.findall(r"<!-- begin generated: (\w+) -->", page.read_text())]


@pytest.fixture(scope="module")
def reports():
    return {name: published(name, REPOSITORY) for name in dict.fromkeys((*NAMES, "recipe_wall"))}


def test_the_pages_have_the_published_numbers(reports):
    shown = [BLOCK]
    for name, report in reports.items():
        for (page, block), text in blocks(name, report, REPOSITORY).items():
            assert read_block(page, block) == text, "make it again: python -m experiments.publish"
            shown.append(block)
    assert read_block(REPOSITORY / "docs" / "objectives.md", BLOCK) == choice(REPOSITORY)
    assert sorted(shown) == sorted(GENERATED), "no other block says that it was generated"


@pytest.mark.parametrize(("name", "figure"), FIGURES)
def test_figures_are_drawn_from_the_published_numbers(reports, name, figure):
    drawn_from = figure_digest(REPOSITORY / "docs" / "images" / f"{name}_{figure}.png")
    assert drawn_from == digest(reports[name].as_json()), "draw it again: python -m experiments.publish"


def test_no_other_figure_shows_results():
    shown = {path.stem for path in (REPOSITORY / "docs" / "images").glob("*.png")}
    others = {"wall", "pusht", "point_maze", "report_first", "report_inspector", "preview", "variation"}
    assert shown - {f"{name}_{figure}" for name, figure in FIGURES} == others, "environments, and how a page looks"


def test_what_was_published_names_its_committed_revisions(reports):
    for name, report in reports.items():
        if report is not None:
            assert all(re.fullmatch(r"[0-9a-f]{7,40}", each) for each in report.made.revision.split(" and ")), name
            assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", each) for each in report.made.date.split(" and ")), name


def test_what_was_published_is_of_the_configured_cells(reports):
    for name in NAMES:
        study, report = study_of(name), reports[name]
        cells = {(cell.planner, cell.model) for cell in study.cells}
        assert {(row.planner, row.model) for row in report.rows} <= cells, name
        assert set(report.models) == set(study.config.models), name


def test_the_choice_of_the_objective_is_not_made_on_the_reported_episodes():
    goals = study_of(STUDIES[0]).config.goals
    assert goals["choice"][0] == "seed=1000" and goals["report"][0] == "seed=99"


def test_the_default_objective_is_the_measured_choice(reports):
    chosen = GoalDistance(**REPLANNED)
    settings = {key: value for key, value in chosen.settings.items() if key != "first_frame"}
    overrides = [f"objective={chosen.mode}", *(f"objective.{key}={value:g}" for key, value in settings.items())]
    study = study_of(STUDIES[0])
    names = {name.partition(", ")[2] for name, own in study.planners.items() if own[-len(overrides) :] == overrides}
    assert len(names) == 1
    losses = largest_losses({reports[name].protocol.env: reports[name].rows for name in STUDIES})
    for kind, own in losses.items():
        assert own[next(iter(names))] <= min(own.values()) + 5, kind


def test_the_largest_loss_is_on_the_worst_task_and_pools_the_planners_of_a_kind():
    def row(planner, objective, solved, goals="choice"):
        success = Rate(mean=solved / 10)
        return Row(model="base", planner=f"{planner}, {objective}", goals=goals, episodes=10, success=success)

    gradient = KINDS["gradient"]
    wall = [
        *(row(planner, "a", 9) for planner in gradient),
        row("mpc_gd", "b", 6),
        row("mpc_gd_lbfgs", "b", 8),
        row("mpc_gd_lbfgs", "only one planner", 10),
        row("mpc_cem", "a", 5),
        row("mpc_cem", "last, whole plans", 10),
        row("mpc_cem", "a", 10, goals="report"),
    ]
    pusht = [*(row(planner, "a", 2) for planner in gradient), *(row(planner, "b", 3) for planner in gradient)]
    losses = largest_losses({"wall": wall, "pusht": pusht})
    assert losses["gradient"] == pytest.approx({"a": 10, "b": 20})
    assert losses["sampling"] == pytest.approx({"a": 0})


def test_numbers_and_blocks_come_back_as_they_were_written(tmp_path):
    numbers = {"a": [1.5, None, "x\\n [y] {z}"], "b": {"c": {"d": [True]}, "e": []}}
    write_numbers(tmp_path / "n.json", numbers)
    assert read_numbers(tmp_path / "n.json") == numbers
    assert digest(numbers) != digest(numbers | {"a": [1.6]})
    page = tmp_path / "page.md"
    page.write_text("x <!-- begin generated: a -->\n<!-- end generated: a --> y")
    write_block(page, "a", "| 1 |\n\n| 2 |")
    assert read_block(page, "a") == "| 1 |\n\n| 2 |"
    with pytest.raises(ValueError, match="needs the two lines <!-- begin generated: b -->"):
        write_block(page, "b", "")
