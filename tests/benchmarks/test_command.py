import contextlib
import json
import signal
import sys
import time

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import planning
from benchmarks.bars import CEM_CALL, LBFGS_CALL, judge
from benchmarks.ceiling import CUBES, Ceiling
from benchmarks.measure import Case, Pace, Timing, Work, measure
from benchmarks.memory import peak_gb
from benchmarks.table import duration, earlier, line, save

QUICK = ("benchmarks", "--quick", "--threads", "1")
SHORT = "training.batch_size=1"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """A processor without bf16 would take 15 s for the usual ceilings."""
    monkeypatch.setitem(CUBES, "cpu", (256, 512))
    monkeypatch.setattr(planning, "EPISODES", 4)
    monkeypatch.setattr(planning, "STEPS_IN_A_ROW", 2)


def case(run, items=1, **options):
    return Case("product", lambda: contextlib.nullcontext(Work(run, items, "products", **options)))


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command in this process, to the end that is expected; gives what it wrote to output and to errors."""
    threads = torch.get_num_threads()

    def run(*arguments, code=None):
        monkeypatch.setattr(sys, "argv", [*QUICK, *map(str, arguments)])
        capsys.readouterr()
        ended = None
        try:
            command.main()
        except SystemExit as stop:
            ended = stop.code
        assert ended == code or (code is str and isinstance(ended, str)), ended
        return capsys.readouterr().out, ended

    yield run
    torch.set_num_threads(threads)


def test_a_matrix_product_is_counted_right_and_reaches_its_own_ceiling():
    a = torch.randn(512, 512)
    timing = measure(case(lambda: a @ a), CPU, Pace(0.1, 3))
    assert timing.gflop_per_item == pytest.approx(2 * 512**3 / 1e9)
    assert timing.executed == 1
    assert timing.fraction > 0
    assert timing.gflops == pytest.approx(timing.items_per_second * timing.gflop_per_item)
    assert Ceiling(CPU, torch.bfloat16, seconds=0.05).measure().best > 0
    peaks = Ceiling(CPU, torch.float32, seconds=0.05).measure()
    assert peaks.best >= peaks.torch_mm > 0 and timing.best_fraction <= timing.fraction


def test_what_is_wasted_shows_and_a_formula_decides_the_fraction():
    a = torch.randn(512, 512)
    wasteful = measure(case(lambda: (a @ a, a @ a), flops=2.0 * 512**3), CPU, Pace(0.0, 1))
    assert wasteful.executed == pytest.approx(2)
    assert wasteful.gflop_per_item == pytest.approx(2 * 512**3 / 1e9)


def test_plain_ways_are_timed_in_turn_and_a_slice_is_projected():
    calls = []
    ways = {"slow": lambda: calls.append("slow") or time.sleep(0.05)}
    work = {"plain": lambda: ways, "whole": 10.0, "sliced": "a tenth", "counts": False}
    timing = measure(case(lambda: calls.append("ours") or time.sleep(0.01), **work), CPU, Pace(0.0, 2))
    assert calls == ["ours", "slow", "ours", "slow", "ours", "slow"], "one call for the memory, then two repeats"
    assert timing.ratios["slow"] > 1
    assert timing.whole_seconds == pytest.approx(10 * timing.seconds)
    assert "~" in line(timing, {}) and "x slow" in line(timing, {})
    alone = measure(case(lambda: time.sleep(0.01), **work), CPU, Pace(0.0, 1, plain=False))
    assert alone.ratios == {}


def test_a_plain_way_that_takes_long_is_not_repeated_as_often():
    calls = []
    work = {"plain": lambda: {"slow": lambda: calls.append("slow") or time.sleep(0.05)}, "counts": False}
    timing = measure(case(lambda: calls.append("ours"), **work), CPU, Pace(0.0, 4, plain_seconds=0.08))
    assert calls.count("ours") == 5 and calls.count("slow") == 3
    assert timing.ratios["slow"] > 1


def test_the_peak_is_that_of_the_case_alone():
    def large():
        torch.ones(2**27)  # half a GiB

    before = peak_gb(lambda: None, CPU)
    assert peak_gb(large, CPU) == pytest.approx(before + 0.5, abs=0.1)
    assert peak_gb(lambda: None, CPU) == pytest.approx(before, abs=0.1)


def test_results_are_read_back_and_anything_else_is_refused(tmp_path):
    timing = measure(case(lambda: time.sleep(0.001), counts=False), CPU, Pace(0.0, 1))
    save(tmp_path / "run.json", {}, [timing])
    assert earlier(tmp_path / "run.json") == {"product": timing.items_per_second}
    assert line(timing, earlier(tmp_path / "run.json")).endswith("1.00 x before")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="not a file of an earlier run"):
        earlier(tmp_path / "other.json")
    assert [duration(seconds) for seconds in (0.5, 600, 36000)] == ["0.5 s", "10 min", "10 h"]


def test_bars_are_judged_where_they_are_measured_and_projected_elsewhere():
    def timing(name, **numbers):
        ratios = {"shipped": 3.0, "frozen": 1.1, "float32": 2.5}
        return Timing(
            **{"name": name, "unit": "", "seconds": 2.0, "items_per_second": 5.0, "ratios": ratios, **numbers}
        )

    lines = [timing("full H=1: gd step", fraction=0.7, best_fraction=0.3), timing("full H=1: cem step", fraction=0.6)]
    verdicts = {verdict.text: verdict for verdict in judge(lines, "full", CPU)}
    assert verdicts["GD step"].met and verdicts["GD step"].measured == pytest.approx(70)
    assert "30 % of oneDNN" in verdicts["GD step"].line()
    assert verdicts["CEM step"].met is False and "NOT MET" in verdicts["CEM step"].line()
    assert verdicts["full H=1: gd step, against earlier release"].met
    assert verdicts["full H=1: gd step, against its loop, eval and frozen"].met is False
    assert verdicts["adversarial step"].met is None and "interrupted" in verdicts["adversarial step"].line()
    call = verdicts["GD-Adam 100 steps, 50 episodes"]
    assert call.measured is None and call.note.endswith("no such GPU; this CPU: ~ 16.7 min")
    assert verdicts[LBFGS_CALL].note.endswith("no such GPU; this CPU: ~ 4 s"), "20 gradient steps at 5 a second"
    whole = timing("full H=1 bf16: CEM 300 x 30, 50 episodes", seconds=40.0, peak_gb=9.0)
    narrow = timing(f"projected H=1 bf16: {LBFGS_CALL}", seconds=0.04)
    verdicts = {verdict.text: verdict for verdict in judge([whole, narrow], "full", torch.device("cuda"))}
    assert verdicts[CEM_CALL].met and verdicts[f"{CEM_CALL}, peak"].met is False
    assert verdicts[f"{LBFGS_CALL}, 8 channels"].met and verdicts[LBFGS_CALL].met is None
    assert not any("earlier release" in text for text in verdicts), "bars of a CPU are not a GPU's"


@pytest.mark.slow
def test_the_bars_of_a_small_model_come_with_verdicts(run, tmp_path):
    out = tmp_path / "bars.json"
    printed, _ = run("--bars", "--size", "small", "--only", "H=3: (gd|adversarial) step", "--json", out, SHORT)
    saved = json.loads(out.read_text())
    judged = {verdict["text"]: verdict for verdict in saved["bars"]}
    [gd, adversarial] = saved["timings"]
    assert judged["adversarial step"]["measured"] == pytest.approx(100 * adversarial["fraction"])
    assert judged["small H=3: gd step, against earlier release"]["measured"] == pytest.approx(gd["ratios"]["shipped"])
    assert {"speed=plain", "speed.cpu_products=torch"} < gd["ratios"].keys()
    assert "not measured here: no such GPU" in printed
    assert saved["date"].endswith("+00:00") and saved["environment"].keys() >= {"torch", "revision", "cpu", "cpu_cores"}


@pytest.mark.slow
def test_a_table_compares_takes_overrides_and_refuses_those_nobody_knows(run, tmp_path):
    out = tmp_path / "bench.json"
    chosen = ("--only", "(cem step|adversarial step)", "--size", "small", "--history", "3", "--json", out)
    given = ("planner.num_samples=40", SHORT)
    first, _ = run(*chosen, "--plain", *given)
    cem, adversarial = json.loads(out.read_text())["timings"]
    assert (cem["name"], adversarial["name"]) == ("small H=3: cem step", "small H=3: adversarial step")
    assert cem["items_per_second"] * cem["seconds"] == pytest.approx(10 * 40)
    assert cem["ratios"].keys() == {"shipped", "frozen"} and adversarial["ratios"].keys() == {"shipped"}
    assert "x frozen" in first
    assert run(*chosen, "--compare", out, *given)[0].count("x before") == 2
    _, error = run(*chosen, "planner.lrr=1", code=str)
    assert error.startswith("error: planner.lrr=1:")


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_measured(forked, tmp_path):
    out = tmp_path / "bench.json"
    process = forked("-m", *QUICK, "--size", "small", "--json", out)
    deadline = time.monotonic() + 60
    while not out.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "interrupted" in printed
    assert json.loads(out.read_text())["timings"]
