import numpy as np
import pytest
import torch

from models.foreign.dino_wm import read_pickled_checkpoint
from models.networks.proprio import FixedProjection, ProprioceptiveEmbedding


@pytest.mark.parametrize(("name", "num_hist"), [("pusht_h3", 3), ("wall_h1", 1)])
@pytest.mark.parametrize(
    ("part", "given", "recorded"),
    [("proprio_encoder", "in/proprio", "proprio_emb"), ("action_encoder", "in/act", "act_emb")],
)
@torch.no_grad()
def test_embeddings_are_those_of_the_original_encoders(shared_golden, name, num_hist, part, given, recorded):
    arrays = np.load(shared_golden(f"world_model_outputs_h{num_hist}.npz"))
    state = read_pickled_checkpoint(shared_golden(f"checkpoints/{name}/checkpoints/model_latest.pth")).parts[part]
    values = torch.from_numpy(arrays[given])
    embedding = ProprioceptiveEmbedding(values.shape[-1], 10)
    embedding.load_state_dict(state)
    torch.testing.assert_close(embedding(values), torch.from_numpy(arrays[recorded]), atol=1e-5, rtol=0)


@torch.no_grad()
def test_each_frame_is_mapped_alone_whatever_the_leading_dimensions():
    embedding = ProprioceptiveEmbedding(4, 10)
    values = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    convolved = embedding.patch_embed(values.reshape(-1, 4, 1))[..., 0]
    torch.testing.assert_close(embedding(values).reshape(-1, 10), convolved)
    torch.testing.assert_close(embedding(values)[1, 2, 3], embedding(values[1, 2, 3]))


@pytest.mark.parametrize("argument", [{"num_frames": 3}, {"tubelet_size": 2}, {"use_3d_pos": True}])
def test_settings_without_effect_are_refused(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        ProprioceptiveEmbedding(4, 10, **argument)


def test_the_fixed_projection_keeps_distances():
    projection = FixedProjection(4, 10)
    values = torch.randn(6, 7, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(projection(values).norm(dim=-1), values.norm(dim=-1))
    assert projection(values).shape == (6, 7, 10)


def test_the_fixed_projection_is_saved_but_never_trained():
    drawn, other = FixedProjection(4, 10, seed=0), FixedProjection(4, 10, seed=1)
    assert not list(drawn.parameters())
    assert torch.equal(drawn.weight, FixedProjection(4, 10, seed=0).weight)
    assert not torch.equal(drawn.weight, other.weight)
    other.load_state_dict(drawn.state_dict())
    assert torch.equal(drawn.weight, other.weight)


def test_a_projection_to_fewer_entries_is_refused():
    with pytest.raises(ValueError, match=r"proprio_emb_dim=10 .* must be at least the 11 values"):
        FixedProjection(11, 10)
