"""Tables and figures of README and docs are those of the numbers in ``docs/published``, of one run each."""

import re

import pytest

from demo.publish import PICTURED
from demo.publish import blocks as demo_blocks
from experiments.config import StudyConfig
from experiments.publish import block as recipe_block
from experiments.stages import composed
from results.numbers import Numbers
from results.publish import blocks as study_blocks
from tests.builders import REPOSITORY
from tests.published import figure_digest, read_block
from utils.pages import digest, read_numbers, write_block, write_numbers

PUBLISHED = {path.stem: read_numbers(path) for path in sorted((REPOSITORY / "docs" / "published").glob("*.json"))}
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
DEMOS = [name for name in PUBLISHED if name.startswith("demo_")]
RECIPES = [path.stem for path in sorted((REPOSITORY / "conf").glob("recipe_*.yaml"))]
FIGURES = {f"{name}_{figure}": name for name in PICTURED for figure in ("success", "gap") if name in PUBLISHED} | {
    "results_success": "results_wall",
    "results_budgets": "results_wall",
}


@pytest.mark.parametrize("name", DEMOS)
def test_the_pages_have_the_published_numbers_of_the_demo(name):
    for (page, block), text in demo_blocks(name, PUBLISHED[name]).items():
        assert read_block(REPOSITORY / page, block) == text


def test_the_pages_have_the_published_numbers_of_the_study():
    for (page, name), text in study_blocks(Numbers.of_json(PUBLISHED["results_wall"])).items():
        assert read_block(REPOSITORY / page, name) == text


@pytest.mark.parametrize("name", RECIPES)
def test_the_page_has_the_kept_outcomes_of_the_recipe(name):
    config = composed(StudyConfig, name, [])
    assert read_block(REPOSITORY / "docs" / "recipes.md", name) == recipe_block(REPOSITORY, config)


@pytest.mark.parametrize("figure", FIGURES)
def test_figures_are_drawn_from_the_published_numbers(figure):
    drawn_from = figure_digest(REPOSITORY / "docs" / "images" / f"{figure}.png")
    assert drawn_from == digest(PUBLISHED[FIGURES[figure]]), "draw it again: python -m demo.publish, results.publish"


def test_no_other_block_says_that_it_was_generated_and_no_other_figure_shows_results():
    found = [name for page in PAGES for name in re.findall(r"<!-- begin generated: (\w+) -->", page.read_text())]
    assert sorted(found) == sorted(
        [*DEMOS, *RECIPES, "demo_wall_summary", "objectives", "results_wall", "results_wall_summary"]
    )
    shown = {path.stem for path in (REPOSITORY / "docs" / "images").glob("*.png")}
    assert shown - set(FIGURES) == {"wall", "pusht", "point_maze"}, "pictures of the environments"


def test_what_was_published_names_one_committed_revision():
    for name, numbers in PUBLISHED.items():
        environment = numbers["environment"] if name in DEMOS else numbers["made"]["environment"]
        assert re.fullmatch(r"[0-9a-f]{7,40}", environment["revision"]), name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", numbers["made"]["date"]), name


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
