"""Training a compiled predictor: the same losses, weights and files."""

import pytest
import torch
from torch import nn

from models.checkpoints.native import read_checkpoint
from models.speed.compiling import compiled_parts, compiles, runs_kernels, what_triton_lacks
from models.speed.linear import PaddedLinear
from models.speed.replacing import make_fast
from tests.builders import near
from tests.training.tiny import build, without_times

BRIEF = ("training.epochs=1", "training.max_batches=3", "training.num_reconstruct_samples=0")
ONLINE = ("method=online_adversarial", "replay_buffer_frequency=2", "method.planner.opt_steps=2")


@pytest.mark.slow
def test_a_compiled_predictor_trains_as_a_plain_one(tmp_path):
    runs = []
    for compiled in ("false", "true"):
        training = build(tmp_path / compiled, *ONLINE, *BRIEF, f"speed.compile={compiled}")
        parts = compiled_parts(training.model.predictor)
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
    monkeypatch.setattr("models.speed.compiling.what_triton_lacks", lambda: None)
    assert [compiles("auto", device) for device in (cpu, gpu)] == [False, True]
    assert [compiles(choice, cpu) for choice in (True, False)] == [True, False]
    assert not runs_kernels(cpu)


@pytest.fixture
def asked_anew():
    """What Triton lacks is looked up once per process."""
    what_triton_lacks.cache_clear()
    yield what_triton_lacks.cache_clear
    what_triton_lacks.cache_clear()


def test_what_triton_lacks(monkeypatch, tmp_path, asked_anew):
    """Without it nothing is compiled on a GPU unless that is asked for."""
    gpu = torch.device("cuda")
    with monkeypatch.context() as patch:
        patch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
        assert "python3-dev" in what_triton_lacks()
    asked_anew()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert "gcc" in what_triton_lacks()
    assert not compiles("auto", gpu)
    assert compiles(True, gpu)
    assert not runs_kernels(gpu)


def test_only_layers_that_need_it_are_padded(tmp_path):
    model = build(tmp_path, "predictor=vit").model
    needy = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Linear) and (layer.in_features % 8 or layer.out_features % 8)
    ]
    make_fast(model, pads=True)
    assert needy and needy == [module for module in model.modules() if isinstance(module, PaddedLinear)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_padded_layers_multiply_as_they_did():
    layer, values = nn.Linear(404, 30, device="cuda"), torch.randn(50, 404, device="cuda")
    found = []
    for pads in (False, True):
        make_fast(layer, pads=pads)
        with torch.autocast("cuda", torch.bfloat16):
            found.append(layer(values))
        found.append(torch.autograd.grad(found[-1].float().square().sum(), layer.weight)[0])
    assert found[2].shape == (50, 30) and found[2].dtype == torch.bfloat16
    near(found[2].float(), found[0].float(), 0.01)
    near(found[3], found[1], 0.01)
