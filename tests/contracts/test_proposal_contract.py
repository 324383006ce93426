"""Every option of the group ``proposal`` keeps the contract of ``models.interfaces.Proposal``."""

from __future__ import annotations

import pytest
import torch

from models.architecture import Architecture
from models.build import build_world_model
from models.checkpoints.loading import EncoderConfig, load_for_planning
from models.checkpoints.native import read_checkpoint, write_model_config
from models.checkpoints.own_file import write_checkpoint
from models.interfaces import Proposal
from planning.planners.gd import GDPlanner
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import ActionSpace
from tests.builders import latent_of
from utils.env_sizes import EnvSizes

SIZES = EnvSizes(env_action_dim=2, proprio_dim=2, state_dim=2)
ACTION_DIM = 10


@pytest.fixture(scope="module")
def config(proposal_option, composing):
    """The settings of a training of this proposal."""
    return composing("experiment=wall_state", "method=proposal", f"proposal={proposal_option}")


@pytest.fixture(scope="module")
def model(config):
    """A small model with this proposal, and no output of it that is zero only because nothing was trained."""
    torch.manual_seed(0)
    built = build_world_model(Architecture.from_dict(config), *SIZES).eval()
    with torch.no_grad():
        for parameter in built.proposal.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return built


@pytest.fixture(scope="module")
def ends(model):
    """Starts and goals of three problems."""
    return [latent_of(3, 1, model=model, seed=seed) for seed in (1, 2)]


def test_it_proposes_as_many_finite_blocks_as_it_says(model, ends):
    assert isinstance(model.proposal, Proposal) and model.proposal.horizon >= 1
    blocks = model.propose(*ends)[:, 0]
    assert blocks.shape == (3, model.proposal.horizon, ACTION_DIM)
    assert blocks.dtype == torch.float32 and blocks.isfinite().all()


def test_each_problem_is_answered_by_itself_and_again_alike(model, ends):
    start, goal = ends
    together = model.propose(start, goal)[:, 0]
    assert torch.equal(model.propose(start, goal)[:, 0], together)
    for row in range(3):
        torch.testing.assert_close(model.propose(start[row : row + 1], goal[row : row + 1])[:, 0][0], together[row])


def test_what_it_learns_with_has_gradients(model, ends):
    parameters = list(model.proposal.parameters())
    if parameters:
        gradients = torch.autograd.grad(model.propose(*ends)[:, 0].square().sum(), parameters, allow_unused=True)
        assert any(gradient is not None and gradient.any() for gradient in gradients)


def test_a_planner_begins_with_it(model, ends):
    blocks = model.propose(*ends)[:, 0].detach()
    planner = GDPlanner(horizon=model.proposal.horizon, opt_steps=1, sample_type="proposal")
    space = ActionSpace(torch.zeros(ACTION_DIM), 2, proposal=blocks)
    noise = EpisodeNoise.derive(0, range(3), 0, torch.device("cpu"))
    assert torch.equal(planner.initial_actions(noise, space), blocks)


def test_a_checkpoint_brings_it_back(model, ends, config, tmp_path):
    write_model_config(tmp_path, config)
    path = tmp_path / "checkpoints" / "model_latest.safetensors"
    write_checkpoint(path, model, epoch=0, about={"step": 0}, with_encoder=True)
    loaded, _ = load_for_planning(read_checkpoint(tmp_path), SIZES, EncoderConfig(), torch.device("cpu"))
    torch.testing.assert_close(
        loaded.propose(*ends)[:, 0], model.propose(*ends)[:, 0].detach()
    )  # kernels of frozen weights differ
