import torch

from models.networks.state_encoder import StateEncoder
from tests.builders import numbers, option, wall_architecture, wall_model


def test_a_state_is_one_token_and_stays_what_it_is():
    states = numbers(2, 3, 7)
    encoder = StateEncoder(7)
    assert encoder(states).shape == (2, 3, encoder.num_patches, encoder.emb_dim)
    assert torch.equal(encoder(states)[:, :, 0], states)
    assert encoder.observes == "state"


def test_a_model_of_states_imagines_without_images():
    parts = {"encoder": option("encoder", "state"), "predictor": option("predictor", "mlp", width=8, depth=1)}
    model = wall_model(wall_architecture(has_decoder=False, **parts))
    latent = model.encode(numbers(3, 1, 2), numbers(3, 1, 2))
    imagined = model.rollout(latent, numbers(3, 4, 10))
    assert imagined.visual.shape == (3, 5, 1, 2)
    assert torch.equal(imagined.visual[:, 0, 0], numbers(3, 1, 2)[:, 0])
