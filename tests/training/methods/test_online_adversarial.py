"""Online and adversarial finetuning as one method."""

import torch

from tests.training.tiny import build
from training.methods.adversarial import Adversarial
from training.methods.online import Online


def test_corrected_windows_are_perturbed_too(tmp_path):
    """The windows are the online method's, the loss the adversarial one's, on all of them."""
    training = build(tmp_path / "both", "method=online_adversarial", "method.planner.opt_steps=2")
    alone = build(tmp_path / "online", "method=online", "method.planner.opt_steps=2")
    with torch.no_grad():  # a predictor whose change is zero has no gradient towards its inputs
        training.model.predictor.head.weight.normal_(std=0.05, generator=torch.Generator().manual_seed(1))
        alone.model.predictor.head.weight.copy_(training.model.predictor.head.weight)
    batch = training.train_data.__getitems__(range(4))
    made = []
    for each in (training, alone):
        latent = each.train_step.latent(batch)
        expert = each.model.windows(latent, batch.actions)
        made.append(each.method.windows(expert, batch, latent, 0))
    both, online = made
    assert len(both.actions) > len(expert.actions)
    torch.testing.assert_close(both.source.visual, online.source.visual)
    torch.testing.assert_close(both.actions, online.actions)

    perturbed, original = [], training.method._perturbed
    training.method._perturbed = lambda *given: perturbed.append(original(*given)) or perturbed[-1]
    loss = training.method.loss(both)
    tokens = training.model.tokens(both.source, both.actions)
    moved = (perturbed[-1] - tokens).detach().flatten(1).abs().amax(1)
    assert (moved > 0).all() and len(moved) == len(both.actions)
    assert loss.total > alone.method.loss(both).total


def test_it_has_the_settings_the_log_and_the_state_of_both(tmp_path):
    overrides = ("method=online_adversarial", "method.planner.opt_steps=3", "adversarial.pgd_steps=2")
    training = build(tmp_path / "run", *overrides, "visual_eps_factor=0.5", "replay_buffer_frequency=4")
    method = training.method
    assert isinstance(method, Online) and isinstance(method, Adversarial)
    assert (method.planner.opt_steps, method.pgd_steps, method.factors[0], method.period) == (3, 2, 0.5, 4)
    training.fit()
    assert method.updated().keys() >= {"replay_trajectories", "visual_eps"}
    assert method.state_dict().keys() >= {"memory", "refreshes", "radii", "ascents"}
