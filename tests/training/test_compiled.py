"""Training a compiled predictor: the same losses, weights and files."""

import pytest
import torch

from models.checkpoint import read_checkpoint
from models.compiling import compiles, runs_triton
from tests.training.tiny import build, without_times

BRIEF = ("training.epochs=1", "training.max_batches=3", "training.num_reconstruct_samples=0")
ONLINE = ("method=online_adversarial", "replay_buffer_frequency=2", "method.planner.opt_steps=2")


@pytest.mark.slow
@pytest.mark.parametrize("method", [("method=offline",), ONLINE], ids=["offline", "online_adversarial"])
def test_a_compiled_predictor_trains_as_a_plain_one(tmp_path, method):
    runs = []
    for compiled in ("false", "true"):
        training = build(tmp_path / compiled, *method, *BRIEF, f"training.compile={compiled}")
        parts = training.model.predictor.compiled_parts()
        assert [part._compiled_call_impl is not None for part in parts] == [compiled == "true"] * len(parts)
        training.fit()
        runs.append((without_times(training.folder / "logs.json"), read_checkpoint(training.folder).tensors))
    (plain_log, plain), (log, tensors) = runs
    for one, other in zip(log, plain_log, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    assert tensors.keys() == plain.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-3, atol=1e-4)


def test_what_is_compiled_where_nothing_is_said(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [compiles("auto", device, "training.compile") for device in (cpu, gpu)] == [False, True]
    assert [compiles(choice, cpu, "training.compile") for choice in (True, False)] == [True, False]
    with monkeypatch.context() as patch:  # where nothing could build what a compiled network launches
        patch.delenv("CC", raising=False)
        patch.setenv("PATH", "")
        assert not compiles("auto", gpu, "training.compile")
        assert not runs_triton(gpu)
    assert not runs_triton(cpu)
    with pytest.raises(ValueError, match=r"training.compile must be true, false or auto, got 'always'"):
        compiles("always", gpu, "training.compile")
