"""The adversarial method on a small model."""

import pytest
import torch

from models.latent import Latent
from models.world_model import Windows
from tests.training.tiny import build, changed, weights
from training.methods.adversarial import Adversarial
from training.methods.base import Method, TrainingContext


@pytest.fixture
def trainer(tmp_path):
    """Build a trainer with ``method=adversarial`` and the overrides, dropout off, the untrained change switched on."""

    def make(*overrides):
        made = build(tmp_path / "run", "method=adversarial", *overrides)
        with torch.no_grad():  # a predictor whose change is zero has no gradient towards its inputs' history
            made.model.predictor.head.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
        return made

    return make


def windows_of(trainer, first=0):
    batch = trainer.train_data.__getitems__(range(first, first + 4))
    return trainer.model.windows(trainer.train_step.latent(batch), batch.actions)


class Spy:
    """Records what ``_perturbed`` was called with and returned."""

    def __init__(self, method):
        self.calls, self._original = [], method._perturbed
        method._perturbed = self

    def __call__(self, tokens, actions, deltas):
        perturbed = self._original(tokens, actions, deltas)
        self.calls.append((tokens.detach(), actions, [d.detach() for d in deltas], perturbed.detach()))
        return perturbed


def test_radii_are_factor_times_the_mean_over_samples_of_their_own_deviation(trainer):
    training = trainer("visual_eps_factor=0.5", "proprio_eps_factor=0.25", "action_eps_factor=0.125")
    windows = windows_of(training)
    tokens = training.model.tokens(windows.source, windows.actions).detach()
    training.method.loss(windows)
    layout = training.model.layout
    widths = (layout.visual_dim, layout.proprio_dim, layout.action_dim)
    expected = []
    for factor, part in zip((0.5, 0.25, 0.125), tokens.split(widths, dim=-1), strict=True):
        deviations = [sample.flatten().std().item() for sample in part]  # of one sample over its patches and features
        expected.append(factor * sum(deviations) / len(deviations))
    assert training.method.radii.tolist() == pytest.approx(expected, rel=1e-5)
    pooled = [factor * part.std().item() for factor, part in zip((0.5, 0.25), tokens.split(widths, -1), strict=False)]
    assert training.method.radii.tolist()[:2] != pytest.approx(pooled, rel=1e-3)  # not the deviation of the batch


@pytest.mark.parametrize("perturbation", ["embedding", "action"])
@pytest.mark.parametrize("layout", [(), ("concat_dim=0", "action_emb_dim=32", "proprio_emb_dim=32")])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_perturbation_ascends_within_the_radii(trainer, perturbation, layout, steps):
    options = (f"method.perturbation={perturbation}", f"method.pgd_steps={steps}")
    training = trainer(*options, *layout, "visual_eps_factor=0.2")
    windows, method = windows_of(training), training.method
    spy = Spy(method)
    perturbed_loss = method.loss(windows)
    assert len(spy.calls) == steps + 1  # one ascent step each, then the training step
    tokens, _, last, perturbed = spy.calls[-1]
    for radius, delta, part in zip(method.radii.tolist(), last, method_parts(training, tokens, windows), strict=True):
        assert delta.shape == part.shape
        assert delta.abs().max() <= radius * (1 + 1e-6)
        assert (delta.abs() > 0.99 * radius).float().mean() > 0.5  # steps of 1.25 or 2.5 radii in all end at the border
    with torch.no_grad():
        start = training.model.prediction_loss(training.model.predict_tokens(spy.calls[0][3]), windows.target)
        clean = Method.loss(method, windows)
    assert perturbed_loss.total > start.total
    assert perturbed_loss.total > clean.total
    first, second = spy.calls[0][2], spy.calls[1][2]
    for radius, before, after in zip(method.radii.tolist(), first, second, strict=True):
        moved = (after - before).abs()
        free = after.abs() < 0.99 * radius  # elements that the border did not stop
        torch.testing.assert_close(
            moved[free], torch.full_like(moved[free], {1: 1.25, 3: 2.5 / 3}[steps] * radius), rtol=1e-4, atol=0
        )
    assert torch.isfinite(perturbed).all()


def method_parts(training, tokens, windows):
    """What the three perturbations are added to."""
    visual, proprio, action = training.model.layout.parts(tokens)
    return visual, proprio, windows.actions if training.method.perturbation == "action" else action


def test_action_perturbation_changes_the_block_and_is_alike_in_every_patch(trainer):
    training = trainer("method.perturbation=action", "action_eps_factor=0.5")
    windows = windows_of(training)
    spy = Spy(training.method)
    training.method.loss(windows)
    tokens, actions, deltas, perturbed = spy.calls[-1]
    assert deltas[2].shape == windows.actions.shape
    expected = training.model.layout.assemble(windows.source, training.model.action_encoder(actions + deltas[2]))
    action = training.model.layout.parts(perturbed)[2]
    torch.testing.assert_close(action, training.model.layout.parts(expected)[2])
    assert (action == action[:, :, :1]).all()
    assert not torch.equal(action, training.model.layout.parts(tokens)[2])


def test_embedding_perturbation_differs_from_patch_to_patch(trainer):
    training = trainer()
    spy = Spy(training.method)
    training.method.loss(windows_of(training))
    tokens, _, deltas, perturbed = spy.calls[-1]
    torch.testing.assert_close(perturbed, tokens + torch.cat(deltas, -1))
    assert (deltas[1] != deltas[1][:, :, :1]).any()
    assert (deltas[2] != deltas[2][:, :, :1]).any()


def test_targets_stay_clean_and_the_ascent_leaves_no_gradient(trainer):
    training = trainer("method.pgd_steps=2")
    windows, model = windows_of(training), training.model
    clean = windows.target.visual.clone(), windows.target.proprio.clone()
    targets, original = [], model.prediction_loss

    def noting(predicted, target):
        targets.append(target)
        assert all(parameter.grad is None for parameter in model.parameters())
        return original(predicted, target)

    model.prediction_loss = noting
    decoded = []
    model.decoder.register_forward_hook(lambda *_: decoded.append(True))
    encoded = []
    model.encoder.register_forward_hook(lambda *_: encoded.append(True))
    loss = training.method.loss(windows)
    assert len(targets) == 3
    for target in targets:
        assert torch.equal(target.visual, clean[0]) and torch.equal(target.proprio, clean[1])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not decoded and not encoded
    loss.total.backward()
    assert model.predictor.head.weight.grad.abs().sum() > 0
    assert model.action_encoder.patch_embed.weight.grad.abs().sum() > 0  # the training step reaches it, the ascent not


def test_a_frozen_proprio_input_still_trains_the_embeddings_through_the_perturbed_tokens(trainer):
    training = trainer("proprio_encoder=proprio")
    training.method.loss(windows_of(training)).total.backward()
    assert training.model.proprio_encoder.patch_embed.weight.grad.abs().sum() > 0


def test_no_radius_is_plain_teacher_forcing(tmp_path):
    nothing = [f"{part}_eps_factor=0" for part in ("visual", "proprio", "action")]
    plain, adversarial = build(tmp_path / "a"), build(tmp_path / "b", "method=adversarial", *nothing)
    for training in (plain, adversarial):
        training.fit()
    before, after = weights(plain.model), weights(adversarial.model)
    assert not changed(before, after)
    some = build(tmp_path / "c", "method=adversarial")
    some.fit()
    assert "predictor" in changed(before, weights(some.model))


def test_fixed_radii_are_kept_and_saved_adaptive_ones_measured_again(trainer, tmp_path):
    for radii_method in ("fixed", "adaptive"):
        training = trainer(f"radii_method={radii_method}")
        method = training.method
        first, second = windows_of(training), scaled(windows_of(training), 3.0)
        method.loss(first)
        measured = method.radii.clone()
        names = ("visual_eps", "proprio_eps", "action_eps")
        assert method.updated() == dict(zip(names, measured.tolist(), strict=True))
        method.loss(second)
        assert torch.equal(method.radii, measured) == (radii_method == "fixed")
        if radii_method == "adaptive":
            torch.testing.assert_close(method.radii[:2], 3 * measured[:2])
        again = Adversarial(radii_method=radii_method)
        again.setup(TrainingContext(training.model, training.train_step.observer, None, 5, 7, tmp_path))
        again.load_state_dict(method.state_dict())
        assert torch.equal(again.radii, method.radii)
        assert torch.equal(again.loss(first).total, method.loss(first).total)  # the draws go on where they stopped


def scaled(windows, factor):
    source = Latent(windows.source.visual * factor, windows.source.proprio * factor)
    return Windows(source, windows.actions, windows.target)


def test_the_ascent_draws_from_its_own_generator(trainer):
    training = trainer()
    windows = windows_of(training)
    before = torch.get_rng_state()
    first = training.method.loss(windows).total
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(first, training.method.loss(windows).total)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("radii_method=sometimes", "radii_method must be one of fixed, adaptive, got 'sometimes'"),
        ("method.perturbation=image", "method.perturbation must be one of embedding, action, got 'image'"),
        ("method.pgd_steps=0", "method.pgd_steps=0 must be a whole number, at least 1"),
        ("adversarial.pgd_steps=0", "method.pgd_steps=0 must be a whole number, at least 1"),
        ("adversarial.clean_weight=1", "method.clean_weight must be below 1, got 1"),
        ("action_eps_factor=-0.1", "action_eps_factor=-0.1 must be a number, at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(tmp_path, override, message):
    with pytest.raises(Exception) as caught:  # Hydra wraps the ValueError; the entry unwraps it again
        build(tmp_path / "run", "method=adversarial", override)
    assert message in str(caught.value)


@pytest.mark.parametrize("weight", [0.25, 0.75])
def test_the_clean_loss_can_be_mixed_in(trainer, weight):
    training, alone = trainer(f"adversarial.clean_weight={weight}"), trainer()
    windows = windows_of(training)
    mixed, perturbed, clean = (
        training.method.loss(windows),
        alone.method.loss(windows),
        Method.loss(alone.method, windows),
    )
    for part in ("total", "visual", "proprio"):
        expected = (1 - weight) * getattr(perturbed, part) + weight * getattr(clean, part)
        torch.testing.assert_close(getattr(mixed, part), expected)
    assert perturbed.total > clean.total  # or the mixture shows nothing
    gradients = []
    for loss in (mixed.total, (1 - weight) * perturbed.total + weight * clean.total):
        model = training.model if loss is mixed.total else alone.model
        gradients.append(torch.autograd.grad(loss, [p for p in model.predictor.parameters() if p.requires_grad]))
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_ascent_asks_for_no_gradients_of_the_predictors_weights(trainer):
    training = trainer("adversarial.pgd_steps=2")
    weight, seen = training.model.predictor.head.weight, []
    predict = training.model.predict_tokens
    training.model.predict_tokens = lambda tokens: seen.append(weight.requires_grad) or predict(tokens)
    training.method.loss(windows_of(training)).total.backward()
    assert seen == [False, False, True]
    assert weight.grad is not None
