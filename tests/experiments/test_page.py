"""The page of a study, in a real browser where there is one."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.page import inspected, write_page
from experiments.page.table import NOTHING
from experiments.report import Report
from planning.episode_record import EpisodeRecord
from tests.experiments.made_study import make_study, write_report
from utils.reading.opening import FileError

CONTRAST = Path(__file__).parent / "contrast.js"
HOSTILE = '</script><img src=x onerror="document.title=1">\'"&|{{ 7 * 7 }}'


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    make_study(folder)
    write_page(folder)
    return folder


@pytest.fixture
def small(tmp_path):
    make_study(tmp_path, ("base", "online"), ("GD",), ("25 steps",), episodes=4)
    write_page(tmp_path)
    return tmp_path


def test_of_runs_of_many_episodes_only_what_is_shown_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(inspected, "MOST_EPISODES", 3)
    make_study(tmp_path, ("base", "online"), ("GD",), ("25 steps",), episodes=40, frames=False)
    report, held = Report.read(tmp_path / "report.json"), []
    part = EpisodeRecord.part
    monkeypatch.setattr(EpisodeRecord, "part", lambda record, rows: held.append(part(record, rows)) or held[-1])
    runs, _ = inspected.inspected_runs(report, tmp_path)
    assert [len(record.plans) for record in held] == [3, 3] and [len(run.episodes) for run in runs] == [3, 3]
    key = ("online", "GD", "25 steps", 0)
    lines = inspected._lines(tmp_path / "episodes.csv", {key: {1, 39}})
    assert list(lines) == [(key, 1), (key, 39)], "of the eighty lines of the table"


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="pages are looked at with playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no Chromium here; on Debian: apt-get install chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def look(browser):
    """Open a study's page; a script's error fails the test."""
    errors, contexts = [], []

    def opened(folder, width=1280, scheme="light"):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, bypass_csp=True)
        )
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(error))
        page.on("request", lambda request: request.url.startswith(("file:", "data:")) or errors.append(request.url))
        page.goto((folder / "report.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors


def texts(page, selector):
    return page.eval_on_selector_all(
        selector, "all => all.filter(e => e.checkVisibility()).map(e => e.textContent.trim())"
    )


def column(page, number):
    return texts(page, f"#results tbody tr > :nth-child({number})")


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_nothing_lies_beside_the_page(study, look, width):
    page = look(study, width)
    inner, outer = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert inner == outer
    beyond = page.evaluate(
        """[...document.querySelectorAll('main *')]
             .filter(e => !e.closest('.scroller, pre, svg, thead') && e.checkVisibility())
             .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
             .map(e => e.outerHTML.slice(0, 80))"""
    )
    assert not beyond


def test_the_first_screen_asks_and_answers(study, look):
    page = look(study)
    report = json.loads((study / "report.json").read_text())
    assert page.inner_text("h1") == report["title"]
    assert texts(page, ".answer li") == report["answer"]
    for figure in page.query_selector_all(".tradeoffs:not([hidden]) svg"):
        assert figure.bounding_box()["y"] < 800
        described = " ".join(figure.query_selector(f"#{name}").text_content()
                             for name in figure.get_attribute("aria-labelledby").split())  # fmt: skip
        assert "online with CEM: 69 % [57, 81]" in described
    page.check("text=50 steps", force=True)
    assert len(page.query_selector_all(".tradeoffs:not([hidden])")) == 1
    assert "Goals 50 steps" in page.inner_text(".tradeoffs:not([hidden]) .caption")


def test_the_table_is_sorted_and_filtered(study, look):
    page = look(study)
    solved = [float(text.split(" ")[0]) for text in column(page, 4)]
    page.click("#results thead th:nth-child(4) button")
    assert [float(text.split(" ")[0]) for text in column(page, 4)] == sorted(solved, reverse=True)
    assert page.get_attribute("#results thead th:nth-child(4)", "aria-sort") == "descending"
    page.click("#results thead th:nth-child(7) button")
    rollouts = column(page, 7)
    assert rollouts[0] == "143" and rollouts[-1] == NOTHING, "what is not known goes last"
    page.select_option("[data-filter=model]", "online")
    page.select_option("[data-filter=goals]", "25 steps")
    assert set(column(page, 1)) == {"online", "no model", "simulator (seen by base)"}, "floors and ceilings stay"
    assert set(column(page, 3)) == {"25 steps"}
    page.fill("#filter-text", "l-bfgs")
    assert column(page, 2) == ["L-BFGS"]
    assert page.inner_text("#count") == "1 of 24 lines"


def test_the_inspector_shows_the_numbers_of_an_episode(small, look):
    def seen():
        page = look(small)
        page.select_option("#i-episode", "3")
        page.wait_for_function("document.querySelector('#f-real').width === 65")
        return page, page.inner_text("#i-numbers").replace("\n\n", "\n")

    page, numbers = seen()
    record = EpisodeRecord.read(small / "runs/0_0_0/episodes.npz")
    assert f"Distance now\n{record.distances[3, 0]:.3g}" in numbers
    assert not page.is_visible("#i-note") and "Results are newer" not in page.inner_text("main")
    distances = record.distances.copy()
    distances[3, 0] = 4321.0
    replace(record, distances=distances).write(small / "runs/0_0_0/episodes.npz")
    write_page(small)
    page, numbers = seen()
    assert "Distance now\n4,321" in numbers
    assert page.is_visible("#i-note"), "frames of before are said to be that"
    assert "Results are newer than this report" in page.inner_text("main")


def test_the_inspector_is_used_with_the_keyboard(study, look):
    page = look(study)
    page.select_option("#i-planner", "CEM")
    page.select_option("#i-filter", "solved")
    page.wait_for_function("document.querySelector('#f-imagined').getAttribute('aria-label').startsWith('Imagined')")
    page.focus("#i-step")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert page.get_attribute("#f-real", "aria-label") == "Simulator: raw step 5"
    assert page.get_attribute("#f-imagined", "aria-label") == "Imagined: block 1 of this plan"
    page.focus("#i-iteration")
    page.keyboard.press("ArrowRight")
    assert page.input_value("#i-step") == "10", "an iteration's slider goes to its end"
    page.keyboard.press(",")
    assert page.input_value("#i-step") == "9"
    page.keyboard.press(" ")
    page.wait_for_function("Number(document.querySelector('#i-step').value) > 10", timeout=1000)
    assert page.inner_text("#i-play") == "Pause"
    assert "Solved at raw step" in page.inner_text("#i-summary")


def test_a_model_without_a_decoder_says_so(study, look):
    page = look(study)
    page.select_option("#i-model", "adversarial")
    page.wait_for_function("document.querySelector('#f-imagined').hidden")
    assert "no decoder" in page.inner_text(".stage")


def test_everything_is_reached_and_left_by_tab(study, look):
    page = look(study)
    reached = []
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
            )
        )
        if page.evaluate("document.activeElement.matches('.term')"):
            assert page.is_visible("#tip")
        if reached[-1] == "PRE":
            break
    assert reached[0] == "skip" and reached[-1] == "PRE"
    assert {"filter-text", "i-episode", "i-step", "i-play"} <= set(reached)
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
    assert outline == "3px", "the focus is seen"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_can_be_read(study, look, scheme):
    assert look(study, scheme=scheme).evaluate(CONTRAST.read_text()) == []


def test_names_may_hold_anything(look, tmp_path):
    make_study(tmp_path, models=(HOSTILE, "b" * 90), planners=(HOSTILE, "CEM"), goals=("25 steps",), episodes=2)
    write_page(tmp_path)
    page = look(tmp_path, 360)
    assert page.title() == json.loads((tmp_path / "report.json").read_text())["title"]
    assert HOSTILE in column(page, 1) and page.input_value("#i-model") == HOSTILE
    assert not page.query_selector("img[src=x]")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_a_large_study_is_light_and_quick(look, tmp_path):
    models, planners = [f"model {i}" for i in range(4)], ("GD", "L-BFGS", "CEM")
    make_study(tmp_path, models, planners, ("25 steps",), episodes=50, frames=False)
    sheet = os.urandom(60_000)  # as large as the frames of a real episode, and of no use
    for number, run in enumerate(json.loads((tmp_path / "report.json").read_text())["inspect"]):
        drawn = tmp_path / run["folder"] / "inspection"
        drawn.mkdir()
        index = {"format": 1, "of": "", "decoder": True, "every": 1, "episodes": list(range(50)), "taken": [1] * 10}
        (drawn / "index.json").write_text(json.dumps(index))
        for n in range(50):
            (drawn / f"real_{n}.webp").write_bytes(sheet + bytes([number, n]))
    path = write_page(tmp_path)
    assert 30_000_000 < path.stat().st_size < 40_000_000, "what does not fit is left out"
    shown = []
    for _ in range(3):  # other programs may be running: the quickest counts
        page = look(tmp_path)
        page.wait_for_selector("#i-numbers dd")
        shown.append(page.evaluate("performance.now()"))
    assert min(shown) < 3000


def test_a_report_that_was_edited_says_so(small):
    report = json.loads((small / "report.json").read_text())
    report["rows"][0]["success"]["mean"] = 0.99
    (small / "report.json").write_text(json.dumps(report))
    assert "Results are newer than this report" in write_page(small).read_text()
    write_report(small, report)
    page = write_page(small).read_text()
    assert "Results are newer" not in page and ">99 [13, 37]<" in page


def test_a_broken_report_leaves_the_page_as_it_was(small):
    before = (small / "report.html").read_text()
    report = json.loads((small / "report.json").read_text())
    report["schema"] = 9
    write_report(small, report)
    with pytest.raises(FileError, match=r"report.json is a report of schema 9, not 1"):
        write_page(small)
    assert (small / "report.html").read_text() == before
