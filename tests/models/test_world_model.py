import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.latent import Latent
from models.rollout_type import ROLLOUT_TYPES
from models.world_model import WorldModel, planning_mode
from tests.builders import (
    bare_model,
    batch_sizes,
    golden_arrays,
    golden_model,
    latent_of,
    near,
    numbers,
)

LAYOUTS = {"features": {"concat_dim": 1}, "repeated": {"concat_dim": 1, "repeats": (2, 3)}, "tokens": {"concat_dim": 0}}


@pytest.fixture(params=["h1", "h3"])
def recorded(request, shared_golden, golden):
    """(recorded model, recorded arrays) for one and for three frames of history."""
    directory = shared_golden({"h1": "checkpoints/wall_h1", "h3": "checkpoints/pusht_h3"}[request.param])
    arrays = golden_arrays(shared_golden(f"world_model_outputs_{request.param}.npz"))
    return golden_model(directory, golden("dinov2_reduced.safetensors")), arrays


def encoded(model: WorldModel, arrays: dict) -> Latent:
    return model.encode(arrays["in/visual_u8"], arrays["in/proprio"])


def test_recorded_encoding(recorded):
    model, arrays = recorded
    latent = encoded(model, arrays)
    near(model.tokens(latent, arrays["in/act"]), arrays["z"])
    near(latent.proprio, arrays["proprio_emb"])
    near(model.action_encoder(arrays["in/act"]), arrays["act_emb"])
    near(model.layout.state_part(model.tokens(latent, arrays["in/act"]))[:, :1], arrays["encode_z_first_frame"])
    goal = model.encode(arrays["in/goal_visual_u8"], arrays["in/goal_proprio"])
    near(goal.visual, arrays["goal_visual_emb"])
    near(goal.proprio, arrays["goal_proprio_emb"])


def test_recorded_predictions(recorded):
    model, arrays = recorded
    for frames in range(1, model.num_hist + 1):
        near(model.predict_tokens(arrays["z"][:, :frames]), arrays[f"predict_t{frames}"])


def test_recorded_decoding_and_its_error(recorded):
    model, arrays = recorded
    latent = model.layout.split(arrays["z"])
    near(model.decode(latent[:, :1]), arrays["decoded_first_frame"])
    error = F.mse_loss(model.decode(latent), arrays["in/visual_u8"].float() / 127.5 - 1)
    near(error, arrays["loss/decoder_recon_loss_reconstructed"], 1e-5)


@pytest.mark.parametrize("name", ["loss", "loss_perturbed"])
def test_recorded_losses(recorded, name):
    model, arrays = recorded
    windows = model.windows(encoded(model, arrays), arrays["in/act"])
    tokens = model.tokens(windows.source, windows.actions)
    if name == "loss_perturbed":
        tokens = tokens + arrays["in/perturbation"]
    found = model.prediction_loss(model.predict_tokens(tokens), windows.target)
    for part, recorded_name in (("total", "z_loss"), ("visual", "z_visual_loss"), ("proprio", "z_proprio_loss")):
        near(getattr(found, part), arrays[f"{name}/{recorded_name}"], 1e-5)


@pytest.mark.parametrize(("name", "option"), [("legacy", "regular"), ("custom", "custom_as_released")])
def test_recorded_rollouts(recorded, name, option):
    model, arrays = recorded
    kind = ROLLOUT_TYPES[option]
    start = encoded(model, arrays)[:, :1]
    imagined = model.rollout(start, arrays["in/plan_act"], kind.num_context, kind.tiles_proprio)
    near(imagined.visual, arrays[f"rollout_{name}/visual"])
    near(imagined.proprio, arrays[f"rollout_{name}/proprio"])


def test_our_custom_rollout_departs_from_the_recorded_one_where_it_should(recorded):
    """The recorded one spreads the first patch's proprio over the frame, ours keeps every patch's own."""
    model, arrays = recorded
    imagined = model.rollout(encoded(model, arrays)[:, :1], arrays["in/plan_act"], 1)
    near(imagined.visual[:, :2], arrays["rollout_custom/visual"][:, :2])
    assert (imagined.visual[:, 2] - arrays["rollout_custom/visual"][:, 2]).abs().max() > 0.1
    if model.num_hist == 1:
        near(imagined.visual, arrays["rollout_legacy/visual"])


@pytest.mark.parametrize("recorded", ["h3"], indirect=True)
def test_recorded_rollout_from_three_real_frames(recorded):
    model, arrays = recorded
    actions = torch.cat([arrays["in/act"][:, :3], arrays["in/plan_act"][:, :3]], 1)
    imagined = model.rollout(encoded(model, arrays)[:, :3], actions)
    near(imagined.visual[:, -1], arrays["rollout_legacy_context/visual_last"])
    near(imagined.proprio, arrays["rollout_legacy_context/proprio"])


def plain_tokens(model: WorldModel, latent: Latent, embedded: torch.Tensor) -> torch.Tensor:
    """Tokens (B, T, P', D') put together number by number."""
    layout = model.layout
    frames = []
    for b, t in np.ndindex(*latent.visual.shape[:2]):
        proprio, action = latent.proprio[b, t], embedded[b, t]
        if layout.tokens_per_frame > layout.num_patches:
            rows = [*latent.visual[b, t], proprio, action]
        else:
            tail = [proprio] * layout.proprio_repeat + [action] * layout.action_repeat
            rows = [torch.cat([patch, *tail]) for patch in latent.visual[b, t]]
        frames.append(torch.stack(rows))
    return torch.stack(frames).unflatten(0, latent.visual.shape[:2])


def plain_latent(model: WorldModel, tokens: torch.Tensor) -> Latent:
    layout = model.layout
    if layout.tokens_per_frame > layout.num_patches:
        return Latent(tokens[:, :, :-2], tokens[:, :, -2])
    first = layout.visual_dim
    return Latent(tokens[..., :first], tokens[:, :, 0, first : first + layout.proprio_dim])


def plain_rollout(model: WorldModel, context: Latent, actions: torch.Tensor, seen: int) -> Latent:
    """The definition: predict from the last ``seen`` frames there are, then write the next action over the result."""
    embedded = model.action_encoder(actions)
    tokens = plain_tokens(model, context, embedded[:, : context.num_frames])
    while tokens.shape[1] <= actions.shape[1]:
        window = tokens[:, -seen:]
        newest = model.predictor(window.flatten(1, 2)).view_as(window)[:, -1:]
        if tokens.shape[1] < actions.shape[1]:
            empty = Latent(torch.zeros_like(context.visual[:, :1]), torch.zeros_like(context.proprio[:, :1]))
            filled = plain_tokens(model, empty, embedded[:, tokens.shape[1] : tokens.shape[1] + 1])
            is_action = plain_tokens(model, empty, torch.ones_like(embedded[:, :1])) == 1
            newest = torch.where(is_action, filled, newest)
        tokens = torch.cat([tokens, newest], 1)
    return plain_latent(model, tokens)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("num_context", [None, 1, 2])
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_a_rollout_is_what_the_plain_loop_says(layout, frames, num_context):
    model = bare_model(num_hist=3, **layout)
    context, actions = latent_of(2, frames, model=model), numbers(2, frames - 1 + 4, 4)
    expected = plain_rollout(model, context, actions, num_context or 3)
    found = model.rollout(context, actions, num_context)
    assert found.num_frames == frames + 4
    near(found.visual[:, frames:], expected.visual[:, frames:], 1e-5)
    near(found.proprio[:, frames:], expected.proprio[:, frames:], 1e-5)
    assert torch.equal(found.visual[:, :frames], context.visual)
    assert torch.equal(found.proprio[:, :frames], context.proprio)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_with_one_frame_of_history_both_rollouts_agree_exactly(layout):
    model = bare_model(num_hist=1, **layout)
    context, actions = latent_of(2, 2, model=model), numbers(2, 5, 4)
    regular, custom = model.rollout(context, actions), model.rollout(context, actions, num_context=1)
    assert torch.equal(regular.visual, custom.visual)
    assert torch.equal(regular.proprio, custom.proprio)


def test_with_three_frames_of_history_the_rollouts_differ():
    model = bare_model(num_hist=3)
    context, actions = latent_of(2, 1, model=model), numbers(2, 3, 4)
    regular, custom = model.rollout(context, actions).visual, model.rollout(context, actions, 1).visual
    assert torch.equal(regular[:, 1], custom[:, 1])  # only one frame exists yet
    assert not torch.allclose(regular[:, 2], custom[:, 2], atol=1e-3)


def test_only_the_last_frames_of_a_long_context_matter():
    model = bare_model(num_hist=2)
    context, actions = latent_of(2, 4, model=model), numbers(2, 6, 4)
    recent = model.rollout(context[:, 2:], actions[:, 2:])
    near(model.rollout(context, actions).visual[:, 4:], recent.visual[:, 2:], 1e-6)


def test_an_action_changes_what_follows_and_nothing_before():
    model = bare_model(num_hist=3)
    context, actions = latent_of(1, 2, model=model), numbers(1, 5, 4)
    changed = actions.clone()
    changed[:, 3] += 1  # executed at frame 3, the second imagined one
    before, after = model.rollout(context, actions).visual, model.rollout(context, changed).visual
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax((0, 2, 3)).min() > 1e-4


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_later_frame_does_not_change_earlier_predictions(layout):
    model = bare_model(num_hist=3, **layout)
    latent, other = latent_of(2, 3, model=model), latent_of(2, 3, model=model, seed=5)
    mixed = Latent(
        torch.cat([latent.visual[:, :2], other.visual[:, 2:]], 1),
        torch.cat([latent.proprio[:, :2], other.proprio[:, 2:]], 1),
    )
    actions = numbers(2, 3, 4)
    first, second = model.predict(latent, actions), model.predict(mixed, actions)
    near(second.visual[:, :2], first.visual[:, :2], 1e-6)
    assert (first.visual[:, 2] - second.visual[:, 2]).abs().max() > 1e-2
    # and the last frame is not alone: its prediction sees the earlier ones
    alone = model.predict(latent[:, 2:], actions[:, 2:])
    assert (first.visual[:, 2] - alone.visual[:, 0]).abs().max() > 1e-2


def test_rollouts_in_a_batch_are_those_of_each_row():
    model = bare_model(num_hist=3)
    context, actions = latent_of(4, 2, model=model), numbers(4, 5, 4)
    together = model.rollout(context, actions).visual
    for row in range(4):
        near(model.rollout(context[row : row + 1], actions[row : row + 1]).visual[0], together[row], 1e-5)


def test_action_gradients_agree_with_finite_differences():
    model = bare_model(num_hist=2).double()
    context = latent_of(1, 1, model=model).map(torch.Tensor.double)
    actions = numbers(1, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a: model.rollout(context, a).visual[:, -1], actions)


@pytest.mark.parametrize(
    ("frames", "actions", "num_context", "message"),
    [
        (3, 2, None, "3 context frames needs at least 3 actions, got 2"),
        (1, 0, None, "1 context frames needs at least 1 actions, got 0"),
        (1, 3, 4, r"num_context <= 3 \(num_hist\), got 4"),
        (1, 3, 0, "got 0"),
    ],
)
def test_impossible_rollouts_are_refused(frames, actions, num_context, message):
    model = bare_model(num_hist=3)
    with pytest.raises(ValueError, match=message):
        model.rollout(latent_of(1, frames, model=model), numbers(1, actions, 4), num_context)


def test_windows_are_all_runs_of_consecutive_frames():
    model = bare_model(num_hist=2)
    frames = torch.arange(5.0).view(1, 5, 1, 1) + 100 * torch.arange(3.0).view(3, 1, 1, 1)
    latent = Latent(frames.expand(3, 5, 3, 6), frames[..., 0].expand(3, 5, 2))
    actions = frames[..., 0].expand(3, 5, 4) + 0.5
    windows = model.windows(latent, actions)
    source = windows.source.visual[:, :, 0, 0]
    assert source.tolist() == [[b + i, b + i + 1] for b in (0, 100, 200) for i in range(3)]
    assert torch.equal(windows.target.visual[:, :, 0, 0], source + 1)
    assert torch.equal(windows.target.proprio[:, :, 0], source + 1)
    assert torch.equal(windows.actions[:, :, 0], source + 0.5)
    assert torch.equal(model.windows(latent, actions[:, :-1]).actions, windows.actions)


def test_targets_take_no_gradient_and_sources_do():
    model = bare_model(num_hist=1)
    latent = latent_of(2, 2, model=model).map(torch.Tensor.requires_grad_)
    windows = model.windows(latent, numbers(2, 2, 4))
    model.prediction_loss(
        model.predict_tokens(model.tokens(windows.source, windows.actions)), windows.target
    ).total.backward()
    assert latent.visual.grad[:, 0].abs().max() > 0
    assert latent.visual.grad[:, 1].abs().max() == 0


def test_the_loss_counts_every_entry_but_the_actions():
    model = bare_model(num_hist=1, repeats=(2, 1))
    target = latent_of(1, 1, model=model)
    predicted = model.tokens(target, numbers(1, 1, 4))
    assert model.prediction_loss(predicted, target).total == 0  # whatever the action entries hold
    wrong = predicted.clone()
    wrong[0, 0, 0, 6] += 1  # one proprio entry of one patch: 3 patches x (6 visual + 2 x 2 proprio) are compared
    loss = model.prediction_loss(wrong, target)
    assert loss.total.item() == pytest.approx(1 / 30)
    assert loss.proprio.item() == pytest.approx(1 / 12)
    assert loss.visual.item() == 0


def test_planning_mode_is_left_as_it_was_entered():
    model = bare_model().train()
    model.encoder.eval()
    model.predictor.pos_embedding.requires_grad_(False)
    with pytest.raises(RuntimeError, match="in between"), planning_mode(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        raise RuntimeError("in between")
    assert model.training and model.predictor.training and not model.encoder.training
    assert not model.predictor.pos_embedding.requires_grad
    assert model.action_encoder.patch_embed.weight.requires_grad


def test_dropout_is_off_in_planning_mode_and_on_in_training():
    model = bare_model().train()
    latent, actions = latent_of(2, 3, model=model), numbers(2, 3, 4)
    torch.manual_seed(0)
    assert not torch.equal(model.predict(latent, actions).visual, model.predict(latent, actions).visual)
    with planning_mode(model):
        assert torch.equal(model.predict(latent, actions).visual, model.predict(latent, actions).visual)


def test_a_rollout_neither_encodes_nor_decodes():
    model = bare_model()
    seen, felt = batch_sizes(model.encoder), batch_sizes(model.proprio_encoder)
    context = model.encode(numbers(2, 1, 6), numbers(2, 1, 2))
    assert (seen, felt) == ([2], [2])
    model.rollout(Latent(context.visual.expand(-1, -1, 3, -1), context.proprio), numbers(2, 3, 4))
    assert (seen, felt) == ([2], [2])


def test_what_a_model_lacks_is_named():
    model = bare_model()
    with pytest.raises(ValueError, match="has_decoder=false"):
        model.decode(latent_of(1, 1, model=model))
    model.predictor = None
    with pytest.raises(ValueError, match="has_predictor=false"):
        model.rollout(latent_of(1, 1, model=model), numbers(1, 1, 4))


def test_the_memory_estimate_grows_with_steps_and_gradients():
    model = bare_model()
    few, many = (model.rollout_bytes(steps, with_grad=True) for steps in (2, 20))
    assert many > 5 * few
    assert model.rollout_bytes(20, with_grad=False) < many / 3
