"""Planning with a projector: in its space, and it is asked once for the start and once for the goal."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from datasets.units.normalizer import Normalizer
from envs.wall.vector_env import WallVectorEnv
from models.interfaces import Encoder
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.cem import CEMPlanner
from planning.planners.gd import GDPlanner
from planning.planners.noise import EpisodeNoise
from planning.request import PlanRequest
from tests.builders import WALL_NORMALIZER, batch_sizes, near, option, wall_architecture, wall_model

EPISODES = 3
PLANNERS = {
    "gd": GDPlanner(horizon=2, opt_steps=3),
    "cem": CEMPlanner(horizon=2, opt_steps=2, num_samples=4, topk=2),
}


class Composed(Encoder):
    """An encoder that ends where a projector of another model does."""

    def __init__(self, encoder: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.num_patches, self.emb_dim = projector.num_patches, projector.emb_dim

    def forward(self, visual: torch.Tensor) -> torch.Tensor:
        return self.projector(self.encoder(visual))


def plan(model, planner):
    env, observer = WallVectorEnv(image_size=65), Observer(model, Normalizer.from_dict(WALL_NORMALIZER))
    start, goal = (observer.present(env, env.reset(range(EPISODES), s)) for s in env.sample_start_goal(range(EPISODES)))
    request = PlanRequest(
        planner=planner,
        observer=observer,
        frameskip=5,
        objective=GoalDistance(),
        context=start,
        goal=goal,
        noise=EpisodeNoise.derive(0, range(EPISODES), 0, torch.device("cpu")),
    )
    return request.plan(), start


@pytest.mark.parametrize("name", list(PLANNERS))
def test_plans_are_those_in_the_projected_space_and_the_encoder_is_asked_once_a_frame(name):
    narrow = option("projector", "channel", hidden=8, emb_dim=4)
    model = wall_model(wall_architecture(projector=narrow)).requires_grad_(False)
    encoded, projected = batch_sizes(model.encoder), batch_sizes(model.projector)
    planned, start = plan(model, PLANNERS[name])
    assert encoded == projected == [EPISODES, EPISODES], "start and goal"
    assert start.visual.shape == (EPISODES, 1, 16, 4)
    model.encoder, model.projector = Composed(model.encoder, model.projector), None
    whole, known = plan(model, PLANNERS[name])
    near(start.visual, known.visual, 1e-6)
    near(planned.actions, whole.actions, 1e-5)
