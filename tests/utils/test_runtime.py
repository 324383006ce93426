import pytest
import torch

from utils.runtime import autocast, describe_environment, pick_device, set_threads

CPU = torch.device("cpu")


def test_auto_takes_a_gpu_if_there_is_one():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "meta:x"])
def test_a_device_that_is_not_here_is_named_with_a_remedy(name):
    with pytest.raises(
        ValueError, match=rf"device={name} cannot be used here .*; use device=auto or device=cpu"
    ) as error:
        pick_device(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("precision", "expected"), [("auto", torch.float32), ("float32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_on_a_cpu(precision, expected):
    with autocast(precision, CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_unknown_precisions_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"precision must be one of auto, float32, bf16, got 'half'"):
        autocast("half", CPU)


def test_threads():
    before = torch.get_num_threads()
    try:
        set_threads(None)
        assert torch.get_num_threads() == before
        set_threads(1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="num_threads must be at least 1 or null, got 0"):
        set_threads(0)


def test_what_a_result_depends_on():
    described = describe_environment()
    assert torch.__version__.startswith(described["torch"])
    assert {"python", "platform", "cpu_threads", "gpu", "revision", "numpy"} <= described.keys()
    assert all(isinstance(value, str) and value for value in described.values())
