import pytest
import torch

from models.latent import Latent
from models.tokens import TOKEN_LAYOUTS, FeatureConcat, PatchwiseProprio, TokenConcat, token_layout
from tests.builders import numbers

LAYOUTS = [
    FeatureConcat(num_patches=4, visual_dim=5, proprio_dim=2, action_dim=3),
    FeatureConcat(num_patches=4, visual_dim=5, proprio_dim=2, action_dim=3, proprio_repeat=3, action_repeat=2),
    TokenConcat(num_patches=4, visual_dim=5, proprio_dim=5, action_dim=5),
]


@pytest.fixture(params=LAYOUTS, ids=["features", "repeated", "tokens"])
def layout(request):
    return request.param


@pytest.fixture
def latent(layout) -> Latent:
    return Latent(numbers(2, 3, 4, layout.visual_dim), numbers(2, 3, layout.proprio_dim, seed=1))


@pytest.fixture
def action(layout) -> torch.Tensor:
    return numbers(2, 3, layout.action_dim, seed=2)


def test_splitting_gives_back_what_was_assembled(layout, latent, action):
    tokens = layout.assemble(latent, action)
    assert tokens.shape == (2, 3, layout.tokens_per_frame, layout.token_dim)
    again = layout.split(tokens)
    assert torch.equal(again.visual, latent.visual)
    assert torch.equal(again.proprio, latent.proprio)


def test_another_action_changes_the_action_entries_only(layout, latent, action):
    other = numbers(*action.shape, seed=3)
    replaced = layout.with_action(layout.assemble(latent, action), other)
    assert torch.equal(replaced, layout.assemble(latent, other))


def test_the_state_part_is_everything_but_the_action(layout, latent, action):
    state = layout.state_part(layout.assemble(latent, action))
    assert torch.equal(state, layout.state_part(layout.assemble(latent, action + 1)))
    action_entries = 4 * 3 * layout.action_repeat if isinstance(layout, FeatureConcat) else 5
    assert state[0, 0].numel() == layout.tokens_per_frame * layout.token_dim - action_entries


def test_joining_gives_back_what_was_parted(layout, latent, action):
    tokens = layout.assemble(latent, action)
    parts = layout.parts(tokens)
    assert sum(part.numel() for part in parts) == tokens.numel()
    assert torch.equal(layout.join(*parts), tokens)
    visual, proprio, acted = (torch.full_like(part, number) for number, part in enumerate(parts))
    expected = layout.assemble(Latent(0 * latent.visual, 0 * latent.proprio + 1), 0 * action + 2)
    assert torch.equal(layout.join(visual, proprio, acted), expected)


def test_the_feature_layout_number_by_number():
    layout = FeatureConcat(num_patches=2, visual_dim=1, proprio_dim=2, action_dim=1, proprio_repeat=2, action_repeat=3)
    latent = Latent(torch.tensor([[[[10.0], [20.0]]]]), torch.tensor([[[1.0, 2.0]]]))
    tokens = layout.assemble(latent, torch.tensor([[[7.0]]]))
    assert tokens.tolist() == [[[[10, 1, 2, 1, 2, 7, 7, 7], [20, 1, 2, 1, 2, 7, 7, 7]]]]


def test_the_token_layout_number_by_number():
    layout = TokenConcat(num_patches=2, visual_dim=2, proprio_dim=2, action_dim=2)
    latent = Latent(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.tensor([[[5.0, 6.0]]]))
    tokens = layout.assemble(latent, torch.tensor([[[7.0, 8.0]]]))
    assert tokens.tolist() == [[[[1, 2], [3, 4], [5, 6], [7, 8]]]]


@pytest.mark.parametrize("name", ["proprio", "action"])
def test_token_widths_that_differ_are_refused_with_both_numbers(name):
    widths = {"proprio_dim": 5, "action_dim": 5, f"{name}_dim": 10}
    with pytest.raises(ValueError, match=r"proprio_emb_dim and action_emb_dim must be 5, got .*10"):
        TokenConcat(num_patches=4, visual_dim=5, **widths)


@pytest.mark.parametrize("name", ["proprio_repeat", "action_repeat"])
def test_repeats_without_effect_are_refused(name):
    with pytest.raises(ValueError, match="no effect with concat_dim=0"):
        TokenConcat(num_patches=4, visual_dim=5, proprio_dim=5, action_dim=5, **{name: 2})


def test_both_values_of_concat_dim_have_a_layout():
    assert TOKEN_LAYOUTS[0] is TokenConcat
    assert TOKEN_LAYOUTS[1] is FeatureConcat


def test_the_proprio_of_every_patch_survives_the_way_there_and_back():
    layout = PatchwiseProprio(3, 6, 2, 4, proprio_repeat=2)
    latent = Latent(numbers(2, 5, 3, 6), numbers(2, 5, 3 * 2, seed=1))
    tokens = layout.assemble(latent, numbers(2, 5, 4, seed=2))
    assert tokens.shape == (2, 5, 3, layout.token_dim)
    found = layout.split(tokens)
    assert torch.equal(found.visual, latent.visual)
    assert torch.equal(found.proprio, latent.proprio)


def test_a_seen_frame_has_the_same_proprio_in_every_patch():
    layout, embedded = PatchwiseProprio(3, 6, 2, 4), numbers(2, 5, 2)
    kept = layout.keep_proprio(embedded)
    assert kept.shape == (2, 5, layout.latent_proprio_dim)
    tokens = layout.assemble(Latent(numbers(2, 5, 3, 6), kept), numbers(2, 5, 4))
    plain = FeatureConcat(3, 6, 2, 4).assemble(Latent(numbers(2, 5, 3, 6), embedded), numbers(2, 5, 4))
    assert torch.equal(tokens, plain)


def test_tokens_of_their_own_have_one_proprio():
    with pytest.raises(ValueError, match="proprio_per_patch=true needs concat_dim=1"):
        token_layout(0, proprio_per_patch=True)
