"""Settings by the names that older runs recorded and users may still type."""

import pytest

from utils.moved_settings import current_overrides, current_settings, current_tensor


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("training.compile=false", "speed.compile=false"),
        ("++training.fused_optimizers=true,false", "++speed.fused_optimizers=true,false"),
        ("training.pad_widths=true", "speed.pad_widths=auto"),
        ("training.pad_widths=false", "speed.pad_widths=false"),
        ("cpu_products=torch", "speed.cpu_products=torch"),
        ("method.speed.capture=false", "speed.capture=false"),
        ("speed@method.speed=auto", "speed=auto"),
        ("initnet=attention", "proposal=attention"),
        ("+initnet.width=16", "+proposal.width=16"),
        ("training.initnet_lr=1e-4", "training.proposal_lr=1e-4"),
        ("method=initnet", "method=initnet"),
        ("training.compiled=1", "training.compiled=1"),
        ("--config-name", "--config-name"),
        ("run_dir='a=\nb'", "run_dir='a=\nb'"),
    ],
)
def test_overrides(old, new):
    assert current_overrides([old]) == [new]


def test_recorded_settings():
    recorded = {
        "cpu_kernels": "auto",
        "training": {"seed": 0, "fast_dropout": False, "pad_widths": True},
        "method": {"_target_": "m", "speed": {"compile": "auto"}},
        "initnet": {"width": 16},
    }
    assert current_settings(recorded) == {
        "training": {"seed": 0},
        "method": {"_target_": "m"},
        "proposal": {"width": 16},
        "speed": {"cpu_kernels": "auto", "fast_dropout": False, "pad_widths": "auto"},
    }
    assert recorded["training"]["pad_widths"] is True
    now = {"training": {"seed": 0}, "speed": {"compile": True}}
    assert current_settings(now) == now


def test_parts_in_the_names_of_tensors():
    assert current_tensor("initnet.head.bias") == "proposal.head.bias"
    assert current_tensor("encoder.initnet.weight") == "encoder.initnet.weight"


def test_plain_plans_of_the_online_method_leave_its_training_as_fast_as_it_was():
    found = current_overrides(["training.fast_dropout=false", "speed@method.speed=plain"])
    assert found[:2] == ["speed.fast_dropout=false", "speed=plain"]
    assert {"speed.fused_optimizers=true", "speed.compile=auto", "speed.cpu_kernels=auto"} <= set(found)
    assert "speed.fast_dropout=true" not in found
