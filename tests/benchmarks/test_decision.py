"""One decision of a small model, timed and taken apart."""

import pytest
import torch

from benchmarks.decision import GRADIENTS, PARTS, decision_cases
from benchmarks.measure import Pace, measure
from benchmarks.setting import Setting


def test_a_decision_is_timed_beside_the_plain_loop_and_its_parts_add_up(tmp_path):
    setting = Setting("small", 1, "float32", torch.device("cpu"), tmp_path)
    [case] = decision_cases(setting)
    timing = measure(case, setting.device, Pace(0.0, 1))
    assert timing.name == "small H=1: decision" and timing.unit == "decisions"
    assert timing.ratios.keys() == {"frozen"} and timing.ratios["frozen"] > 0
    assert timing.gflop_per_item > GRADIENTS * 5 * 0.0002, "twenty gradients through five steps"
    assert timing.parts.keys() == {*PARTS, "other"} and sum(timing.parts.values()) == pytest.approx(1)
    assert timing.parts["linear maps"] > 0
