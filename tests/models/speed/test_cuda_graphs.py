"""A captured gradient step: the same plan as without, and nothing in it that a graph cannot hold."""

import pytest
import torch

from models.latent import Latent
from models.speed.cuda_graphs import WARM_UP, Captured
from models.speed.fast_paths import FastPaths
from planning.cost import LatentGoalCost
from planning.objectives import SETTINGS, GoalDistance
from planning.planners.descent import OPTIMIZERS
from planning.planners.gd import GDPlanner
from planning.planners.gd_lbfgs import LBFGSPlanner
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace
from tests.builders import bare_model, latent_of, numbers
from tests.planning.graph import NoWaiting, count_on_the_device, on_the_cpu
from utils.runtime import autocast

STEPS = 20
TOLERANCE = 3e-4  # float32: Adam's bias correction is computed on the device; a step moves an entry by 0.1
CPU = torch.device("cpu")


def plan(
    capturable, optimizer="adam", progress=None, device="cpu", speed=None, budget=4.0, objective="last", **settings
):
    repeats = (5, 4) if settings.pop("width_28", False) else (1, 1)
    model = bare_model(3, repeats=repeats, dim_head=settings.pop("dim_head", 8)).requires_grad_(False)
    context, goal = latent_of(2, 2, model=model), latent_of(2, 1, model=model, seed=1)
    context, goal = (Latent(part.visual.to(device), part.proprio.to(device)) for part in (context, goal))
    past = numbers(2, 1, 4).to(device)
    prepared = (speed or FastPaths()).prepare(model.to(device))
    cost = LatentGoalCost(
        prepared,
        GoalDistance(objective),
        context,
        past,
        goal,
        memory_budget_gb=budget,
        progress=progress,
        capturable=capturable,
    )
    common = {"horizon": 4, "opt_steps": STEPS, "eval_every": 3}
    if optimizer == "l-bfgs":
        planner = LBFGSPlanner(**common, **settings)
    else:
        noise = settings.pop("action_noise", 0.1)
        planner = GDPlanner(lr=0.1, optimizer_type=optimizer, action_noise=noise, **common, **settings)
    high = torch.ones(4, device=device)
    space = ActionSpace(torch.zeros_like(high), 2, low=-high, high=high)
    noise = EpisodeNoise([3, 4], device)
    return planner.optimize(cost, planner.initial_actions(noise, space), noise, space)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_starts": 3, "clip_actions": True},
        {"lr_schedule": "cosine", "action_noise": 0.0},
        *({"objective": mode} for mode in SETTINGS),
    ],
    ids=str,
)
def test_replays_give_the_same_plan(optimizer, settings, monkeypatch):
    plain = plan(capturable=False, optimizer=optimizer, **settings)
    graphs = on_the_cpu(monkeypatch)
    captured = plan(capturable=True, optimizer=optimizer, **settings)
    assert [graph.replays for graph in graphs] == [STEPS - WARM_UP]
    torch.testing.assert_close(captured.actions, plain.actions, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(captured.cost, plain.cost, rtol=TOLERANCE, atol=0)
    for name in ("evaluations", "gradient_evaluations"):
        assert torch.equal(getattr(captured, name), getattr(plain, name))
    for (step, found), (expected_step, expected) in zip(captured.trace, plain.trace, strict=True):
        assert step == expected_step
        torch.testing.assert_close(found, expected, rtol=TOLERANCE, atol=0)


def test_a_batch_that_starts_leave_is_captured_anew(monkeypatch):
    settings = {"num_starts": 4, "drop_every": 14}
    plain = plan(capturable=False, **settings)
    graphs = on_the_cpu(monkeypatch)
    captured = plan(capturable=True, **settings)
    assert [graph.replays for graph in graphs] == [14 - WARM_UP]  # the other six steps are not worth a graph
    torch.testing.assert_close(captured.actions, plain.actions, rtol=0, atol=TOLERANCE)
    assert torch.equal(captured.evaluations, plain.evaluations)


@pytest.mark.parametrize("objective", ["last", "all"])
@pytest.mark.parametrize("settings", [{}, {"num_starts": 3, "clip_actions": True}], ids=str)
def test_replays_of_l_bfgs_give_the_same_plan(settings, objective, monkeypatch):
    plain = plan(capturable=False, optimizer="l-bfgs", objective=objective, **settings)
    graphs = on_the_cpu(monkeypatch)
    captured = plan(capturable=True, optimizer="l-bfgs", objective=objective, **settings)
    assert [graph.replays for graph in graphs] == [STEPS - WARM_UP]
    assert torch.equal(captured.actions, plain.actions) and torch.equal(captured.evaluations, plain.evaluations)
    for (step, found), (expected_step, expected) in zip(captured.trace, plain.trace, strict=True):
        assert step == expected_step and torch.equal(found, expected)


def test_starts_leave_a_captured_l_bfgs_with_all_that_it_knows(monkeypatch):
    settings = {"optimizer": "l-bfgs", "num_starts": 4, "drop_every": 14}
    plain = plan(capturable=False, **settings)
    graphs = on_the_cpu(monkeypatch)
    captured = plan(capturable=True, **settings)
    assert [graph.replays for graph in graphs] == [14 - WARM_UP]
    assert torch.equal(captured.actions, plain.actions) and torch.equal(captured.evaluations, plain.evaluations)


def test_progress_goes_on_while_replaying(monkeypatch):
    rows = []
    on_the_cpu(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    plan(capturable=True, progress=rows.append)
    # the emulation runs the step once more while it records; a GPU does not, and says so
    assert sum(rows) == 2 * (STEPS + 1) + 2


@pytest.mark.parametrize("optimizer", ["adam", "l-bfgs"])
@pytest.mark.parametrize("objective", SETTINGS)
def test_a_gradient_step_never_waits_for_the_device(objective, optimizer, monkeypatch):
    count_on_the_device(monkeypatch)
    with NoWaiting():
        plan(capturable=False, optimizer=optimizer, objective=objective)


@pytest.mark.parametrize("settings", [{"budget_ms": 60_000}, {"stop_gain": 0.0}], ids=str)
def test_what_looks_at_the_clock_or_at_costs_is_not_captured(settings, monkeypatch):
    graphs = on_the_cpu(monkeypatch)
    plan(capturable=True, **settings)
    assert graphs == []


def test_few_calls_are_not_worth_a_graph(monkeypatch):
    graphs, calls = on_the_cpu(monkeypatch), []
    step = Captured(lambda: calls.append(0), CPU, enabled=True, calls=5)
    for _ in range(5):
        step()
    assert (graphs, len(calls)) == ([], 5)


def test_what_cannot_be_recorded_goes_on_without(monkeypatch, caplog):
    on_the_cpu(monkeypatch)

    def refuses(graph, capture_error_mode):
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA error")

    monkeypatch.setattr(torch.cuda, "graph", refuses)
    calls = []
    step = Captured(lambda: calls.append(0), CPU, enabled=True, calls=20)
    for _ in range(20):
        step()
    assert len(calls) == 20
    assert [record.message for record in caplog.records] == [
        "a gradient step could not be recorded as a CUDA graph, planning goes on without "
        "(operation not permitted when stream is capturing); speed.capture=false avoids the attempt"
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_graph_counts():
    count = torch.zeros((), device="cuda")
    step = Captured(lambda: count.add_(1), count.device, enabled=True, calls=20)
    for _ in range(20):
        step()
    assert step.replays
    assert count.item() == 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("settings", [{}, {"num_starts": 3, "clip_actions": True}])
@pytest.mark.parametrize("speed", [{}, {"pad_widths": False}, {"kernels": False, "compile": False}, {"kernels": False}])
@pytest.mark.parametrize("budget", [4.0, 1e-6])
def test_a_captured_plan_is_the_plain_one_on_a_gpu(settings, speed, budget):
    """In bf16, in one chunk and in many; 5 %, as compiled and padded products round to bf16 at other places."""
    with autocast("bf16", torch.device("cuda"), keeps_casts=False):
        # heads of 16 have a kernel of their own
        plain = plan(False, device="cuda", speed=FastPaths.plain(), budget=budget, dim_head=16, **settings)
        captured = plan(True, device="cuda", speed=FastPaths(**speed), budget=budget, dim_head=16, **settings)
    assert torch.equal(captured.gradient_evaluations, plain.gradient_evaluations)
    torch.testing.assert_close(captured.cost, plain.cost, rtol=0.05, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("width_28", [False, True])
@pytest.mark.parametrize("settings", [{}, {"num_starts": 4, "drop_every": 14, "clip_actions": True}], ids=str)
def test_l_bfgs_as_one_graph_finds_what_it_finds_step_by_step_on_a_gpu(settings, width_28, precision):
    """Also of tokens as narrow as those of a projected model, 8 channels, which are padded in bf16."""
    with autocast(precision, torch.device("cuda"), keeps_casts=False):
        both = [
            plan(captured, "l-bfgs", device="cuda", dim_head=16, width_28=width_28, **settings)
            for captured in (False, True)
        ]
    assert torch.equal(both[0].evaluations, both[1].evaluations)
    torch.testing.assert_close(both[1].cost, both[0].cost, rtol=1e-2, atol=1e-4)
