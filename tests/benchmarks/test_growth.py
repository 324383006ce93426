"""Curves of growth, and decisions timed in a row."""

import contextlib
import json
import time

import pytest
import torch

from benchmarks.growth import Axis, Curve, Point, measured, write
from benchmarks.measure import Case, Pace, Work, measure, quantile
from benchmarks.real_time import busy_cores
from benchmarks.table import line

CPU = torch.device("cpu")


def test_exponents_tell_by_which_power_a_curve_grows_where_there_is_enough_to_tell():
    points = [Point(1, 0.01, 0.1), Point(2, 0.1, 0.2), Point(4, 0.2, 0.8), Point(8, 0.4, 3.2)]
    curve = Curve("x", "item", points)
    assert curve.exponents("seconds") == [None, None, 1, 1], "a hundredth of a second is noise"
    assert curve.exponents("gb") == pytest.approx([None, 1, 2, 2], nan_ok=True)
    assert curve.steep("gb") and not curve.steep("seconds")


def test_what_should_not_grow_is_steep_as_soon_as_it_does():
    points = [Point(count, 0.1 * count**0.5, 0.0) for count in (1, 2, 4)]
    assert Curve("processes", "", points).steep("seconds") and not Curve("x", "item", points).steep("seconds")


def test_a_curve_is_measured_told_and_drawn(tmp_path):
    said = []
    axis = Axis("naps", (1, 2), lambda value: contextlib.nullcontext(lambda: time.sleep(0.06 * value)), "nap")
    curve = measured(axis, CPU, said.append)
    assert [point.value for point in curve.points] == [1, 2] and curve.points[1].seconds >= 0.12
    assert "naps" in said[0] and len(said) == 3
    write([curve], {"date": "today"}, tmp_path / "growth.json")
    kept = json.loads((tmp_path / "growth.json").read_text())
    assert kept["date"] == "today" and kept["growth"][0]["points"][0]["value"] == 1
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_calls_in_a_row_give_the_slowest_of_a_hundred():
    calls = []

    def run():
        calls.append(0)
        time.sleep(0.02 if len(calls) == 5 else 0)  # the first call is for the memory

    work = Work(run, 1, "calls", counts=False, in_a_row=40)
    timing = measure(Case("c", lambda: contextlib.nullcontext(work)), CPU, Pace(0.1, 3))
    assert len(calls) == 41 and timing.p99 >= 0.02 > timing.seconds
    assert "99 % within" in line(timing, {})
    assert quantile(range(100), 0.99) == 98 and quantile([3, 1, 2], 0.5) == 2


def test_other_cores_are_busy_only_meanwhile():
    with busy_cores(1) as [process]:
        assert process.poll() is None
    assert process.poll() is not None
