import pytest
import torch

from datasets.units.normalizer import Normalizer
from envs.wall.vector_env import WallVectorEnv
from models.world_model import WorldModel
from planning.observer import Observer
from tests.builders import (
    POINT_NORMALIZER,
    WALL_NORMALIZER,
    PointEnv,
    batch_sizes,
    near,
    numbers,
    point_model,
    wall_model,
)


@pytest.fixture
def wall() -> tuple[WallVectorEnv, torch.Tensor]:
    env = WallVectorEnv(image_size=65)
    states, _ = env.sample_start_goal(range(5))
    return env, env.reset(range(5), states)


@pytest.fixture
def model() -> WorldModel:
    return wall_model()


def test_an_observation_is_the_encoded_image_and_the_z_scored_proprio(wall, model):
    env, states = wall
    normalizer = Normalizer.from_dict(WALL_NORMALIZER)
    latent = Observer(model, normalizer).present(env, states, torch.arange(5))
    near(latent.visual[:, 0], model.encoder(env.render()), 1e-6)
    near(
        latent.proprio[:, 0],
        model.proprio_encoder((states.float() - torch.tensor([32.0, 31.0])) / torch.tensor([16, 15])),
    )


def test_only_the_asked_episodes_are_drawn(model):
    env = PointEnv()
    env.reset(range(5), numbers(5, 2))
    latents = []

    class Blind(torch.nn.Module):
        observes = "visual"

        def forward(self, visual):
            latents.append(visual)
            return visual.flatten(-3)[..., None, :2]

    model.encoder = Blind()
    found = Observer(model, POINT_NORMALIZER).present(env, env.states, torch.tensor([3, 1]))
    assert env.rendered == [[3, 1]]
    near(found.proprio[:, 0], model.proprio_encoder(POINT_NORMALIZER.proprio_to_z(env.states[[3, 1]])))


def test_chunks_bound_the_images_and_change_nothing(wall, model):
    env, states = wall
    normalizer, rows = Normalizer.from_dict(WALL_NORMALIZER), torch.tensor([4, 0, 2, 1])
    whole = Observer(model, normalizer).present(env, states, rows)
    sizes = batch_sizes(model.encoder)
    chunked = Observer(model, normalizer, frames_per_chunk=3)
    near(chunked.present(env, states, rows).visual, whole.visual, 1e-6)
    assert sizes == [3, 1]
    frames = env.render()[None].expand(2, -1, -1, -1, -1)  # (B = 2, T = 5)
    sizes.clear()
    features = chunked.features(states[None].expand(2, -1, -1), frames)
    assert sizes == [3, 3, 3, 1]
    near(features, model.encoder(frames), 1e-6)


def test_a_model_of_states_sees_z_scored_states():
    env, observer = PointEnv(), Observer(point_model(), POINT_NORMALIZER)
    states = env.reset(range(4), numbers(4, 2))
    assert not observer.wants_frames
    latent = observer.present(env, states, torch.tensor([2, 0]))
    near(latent.visual[:, 0, 0], POINT_NORMALIZER.states_to_z(states[[2, 0]]), 1e-6)
    assert env.rendered == []


def test_nothing_observed_carries_a_graph(wall, model):
    env, states = wall
    model.requires_grad_(True)
    latent = Observer(model, Normalizer.from_dict(WALL_NORMALIZER)).present(env, states, torch.arange(2))
    assert not latent.visual.requires_grad
    assert not latent.proprio.requires_grad
