"""The arithmetic of an evaluation against what its predictor is really asked."""

import pytest

from experiments.stages import composed
from models.flops import ModelFlops
from models.networks.residual import ResidualViT
from plan import plan
from planning.config import PlanConfig
from planning.cost import LatentGoalCost
from tests.builders import wall_architecture, wall_model, wall_model_directory

COMMON = ["n_evals=2", "n_plot_samples=0", "device=cpu", "num_threads=1", "speed=plain", "planner.n_taken_actions=2"]
PLANNERS = {
    "planner=mpc_cem": ["num_samples=4", "topk=2", "horizon=3", "opt_steps=2"],
    "planner=mpc_gd": ["horizon=3", "opt_steps=2"],
    "planner=mpc_gd_lbfgs": ["horizon=3", "opt_steps=3", "rollout_type=custom"],
}


@pytest.fixture
def asked(monkeypatch):
    """(rows, tokens of each) of the predictor's forward passes in rollouts; not of those that only measure."""
    found, measures = [], []
    forward, imagine = ResidualViT.forward, LatentGoalCost.imagine

    def forward_witnessed(self, tokens):
        if not measures:
            found.append(tokens.shape[:2])
        return forward(self, tokens)

    def imagine_unnoticed(self, actions):
        measures.append(True)
        imagined = imagine(self, actions)
        measures.pop()
        return imagined

    monkeypatch.setattr(ResidualViT, "forward", forward_witnessed)
    monkeypatch.setattr(LatentGoalCost, "imagine", imagine_unnoticed)
    return found


@pytest.mark.parametrize("shrinking", ["none", "budget"])
@pytest.mark.parametrize("planner", PLANNERS)
def test_rollouts_take_what_the_formulas_say(tmp_path, asked, planner, shrinking):
    """With a history of three frames, which fills from one iteration to the next."""
    model = wall_model_directory(tmp_path / "model", num_hist=3)
    few = [f"planner.sub_planner.{text}" for text in PLANNERS[planner]]
    given = [planner, *COMMON, *few, f"planner.shrinking={shrinking}", "planner.max_iter=3"]
    metrics = plan(composed(PlanConfig, "plan_wall", [*given, f"ckpt_path={model}", f"run_dir={tmp_path / 'run'}"]))
    assert metrics["solved_at"] == [0, 0]
    flops = ModelFlops.of(wall_model(wall_architecture(num_hist=3)))
    forward = sum(rows * flops.predictor.total(tokens) for rows, tokens in asked)
    both = sum(rows * flops.predictor.total(tokens, "inputs") for rows, tokens in asked)
    assert 2e12 * metrics["tflop_forward_per_episode"] == pytest.approx(forward)
    differentiated = metrics["gradient_evaluations_per_episode"] / metrics["model_evaluations_per_episode"]
    if differentiated == 0:
        assert metrics["tflop_backward_per_episode"] == 0
    elif shrinking == "none":  # else the rollouts that are not differentiated are not of average length
        backward = 2e12 * metrics["tflop_backward_per_episode"]
        assert backward == pytest.approx(differentiated * (both - forward))
