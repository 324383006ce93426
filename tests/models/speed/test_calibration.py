"""Choosing the fastest way by measurement: what is kept where, and that a run goes on with what it began with."""

import json

import pytest

from models.speed import calibration
from models.speed.calibration import Fastest, fastest
from models.speed.fast_paths import FastPaths


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """As in new processes with an empty cache; gives what each measurement finds."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = [Fastest(onednn=True, attention=True), Fastest(between=True)]
    monkeypatch.setattr(calibration, "_measured", lambda: found.pop(0))
    calibration._fastest.cache_clear()
    yield found
    calibration._fastest.cache_clear()


def test_a_measurement_is_kept_for_later_processes(measured, tmp_path):
    for _ in range(2):
        calibration._fastest.cache_clear()
        assert fastest() == Fastest(onednn=True, attention=True)
    assert len(measured) == 1 and len(list((tmp_path / "cache").rglob("fastest-*.json"))) == 1


@pytest.mark.parametrize("broken", ["", "[]", '{"key": 1}', "half of a"])
def test_a_broken_file_is_measured_anew(measured, tmp_path, broken):
    fastest()
    [kept] = (tmp_path / "cache").rglob("fastest-*.json")
    kept.write_text(broken)
    calibration._fastest.cache_clear()
    assert fastest() == Fastest(between=True)
    assert json.loads(kept.read_text())["fastest"]["between"]


def test_another_processor_or_number_of_threads_is_measured_for_itself(measured, monkeypatch):
    fastest()
    monkeypatch.setattr(calibration, "processor", lambda: "another")
    calibration._fastest.cache_clear()
    assert fastest() == Fastest(between=True)


def test_a_place_that_cannot_be_written_stops_nothing(measured, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fastest() == Fastest(onednn=True, attention=True)


def test_a_run_goes_on_with_what_it_began_with_although_the_cache_is_gone(measured, tmp_path):
    run, speed = tmp_path / "run" / "fastest.json", FastPaths()
    began = speed._on_cpu(True, run)
    speed.keep(run)
    for file in (tmp_path / "cache").rglob("fastest-*.json"):
        file.unlink()
    calibration._fastest.cache_clear()
    assert fastest(run) == began
    assert fastest() == Fastest(between=True), "another run"
    speed.keep(run)
    assert fastest(run) == began


def test_a_run_of_a_small_model_keeps_nothing(measured, tmp_path):
    speed = FastPaths()
    fastest()  # of another run in this process
    speed._on_cpu(False, tmp_path / "fastest.json")
    speed.keep(tmp_path / "fastest.json")
    assert not (tmp_path / "fastest.json").exists()


def test_settings_win_over_what_is_measured(measured):
    assert FastPaths(cpu_kernels=False, cpu_products="torch")._on_cpu(True, None) == Fastest()
    assert FastPaths(cpu_kernels=False)._on_cpu(True, None) == Fastest(onednn=True)
    assert FastPaths()._on_cpu(False, None) == Fastest(), "a small model is not worth a measurement"
    assert len(measured) == 1
