"""Single training steps against recorded ones of the original code."""

import functools

import numpy as np
import pytest
import torch

from datasets.batch import Batch
from datasets.units.normalizer import Normalizer
from models.build import build_world_model
from models.checkpoints.loading import load_weights
from models.checkpoints.native import read_checkpoint
from models.checkpoints.stored_architecture import stored_architecture
from planning.observer import Observer
from training.methods.adversarial import Adversarial
from training.methods.base import Method, TrainingContext
from training.optimizers import LearningRates, Optimizers
from training.settings import TrainSettings
from training.step import TrainingStep

FOLDERS = {1: "wall_h1", 3: "pusht_h3"}
RATES = LearningRates(encoder=1e-6, predictor=1e-5, action_encoder=5e-4, decoder=3e-4)


@pytest.fixture(params=[1, 3], ids=["h1", "h3"])
def history(request):
    return request.param


@pytest.fixture
def arrays(shared_golden, history):
    """Every recorded array of one history, by (file, name)."""

    @functools.cache
    def opened(name):
        return np.load(shared_golden(f"{name}_h{history}.npz"))

    return lambda file, name: torch.from_numpy(opened(file)[name])


@pytest.fixture
def model(shared_golden, golden, history):
    """The recorded world model, dropout off."""
    folder = shared_golden(f"checkpoints/{FOLDERS[history]}/hydra.yaml").parent
    checkpoint = read_checkpoint(folder)
    architecture = stored_architecture(checkpoint)
    reduced = {"embed_dim": 48, "depth": 2, "num_heads": 3, "weights": str(golden("dinov2_reduced.safetensors"))}
    model = build_world_model(architecture.with_arguments("encoder", **reduced), 2, 4 if history == 3 else 2, 5)
    assert load_weights(model, checkpoint) == ["encoder"]
    return model.eval()


@pytest.fixture
def batch(arrays):
    """The recorded first batch, or the second one."""

    def make(suffix=""):
        file = "fgsm" if suffix else "world_model_outputs"
        visual = arrays(file, f"in/visual_u8{suffix}").movedim(-1, 2)
        return Batch(
            proprio=arrays(file, f"in/proprio{suffix}"),
            actions=arrays(file, f"in/act{suffix}"),
            states=torch.zeros(*visual.shape[:2], 5),
            trajectory=torch.zeros(2, dtype=torch.long),
            start=torch.zeros(2, dtype=torch.long),
            visual=visual,
        )

    return make


@pytest.fixture
def train_step(model, tmp_path):
    """One that trains predictor, small encoders and decoder at the recorded rates."""

    def make(method: Method) -> TrainingStep:
        optimizers = Optimizers(model, RATES, train_encoder=False, train_predictor=True, train_decoder=True)
        observer = Observer(model, Normalizer.identity(2, 5, model.proprio_encoder.in_dim))
        method.setup(TrainingContext(model, observer, None, 5, 0, tmp_path))
        settings = TrainSettings(epochs=1, batch_size=2, precision="float32")
        parts = {"model": model, "method": method, "optimizers": optimizers, "observer": observer}
        return TrainingStep(**parts, frames=None, settings=settings)

    return make


def assert_gradients(model, expected):
    """Every gradient of a trained part within 1e-3 of the largest recorded entry; the encoder has none."""
    compared = 0
    for name, parameter in model.named_parameters():
        if name.startswith("encoder."):
            assert parameter.grad is None, name
            continue
        wanted = expected(name)
        torch.testing.assert_close(parameter.grad, wanted, rtol=0, atol=1e-3 * wanted.abs().max().item(), msg=name)
        compared += 1
    assert compared == 49


def test_teacher_forcing_has_the_recorded_loss_and_gradients(train_step, model, batch, arrays):
    losses = train_step(Method())(batch())
    file = "teacher_forcing_grads"
    assert losses["loss"] + losses["decoder_loss"] == pytest.approx(arrays(file, "loss").item(), rel=1e-5)
    assert_gradients(model, lambda name: arrays(file, f"grad/{name}"))


class RecordedDraws(Adversarial):
    """Starts the ascent where the recording did, and keeps what it ascended to."""

    def __init__(self, arrays, **options):
        super().__init__(**options)
        self.arrays = arrays
        self.pending, self.seen = [], []

    def begin(self, case):
        self.seen = []
        eps, drawn = self.arrays("fgsm", f"{case}/eps"), self.arrays("fgsm", f"{case}/delta_init")
        parts = self.context.model.layout.parts(drawn)
        self.pending = [part / radius for part, radius in zip(parts, eps, strict=True)]

    def _uniform(self, part, noise):
        drawn = self.pending.pop(0)
        assert drawn.shape == part.shape
        return drawn

    def _perturbed(self, tokens, actions, deltas):
        self.seen.append(torch.cat([delta.detach() for delta in deltas], -1))
        return super()._perturbed(tokens, actions, deltas)


def assert_same_ascent(method, losses, arrays, case):
    """Radii, ascent and losses of one step, in the recorded limits."""
    np.testing.assert_allclose(method.radii, arrays("fgsm", f"{case}/eps"), rtol=1e-6)
    found, wanted = method.seen[-1], arrays("fgsm", f"{case}/delta_final")
    torch.testing.assert_close(method.seen[0], arrays("fgsm", f"{case}/delta_init"), rtol=0, atol=1e-7)
    differs = (found - wanted).abs() > 1e-6
    if case == "adaptive0":
        gradient = arrays("fgsm", "adaptive0/delta_grad").abs()
        differs &= gradient >= 1e-5 * gradient.max()
        assert not differs.any()
    else:  # no gradient was recorded; a sign may flip where it vanishes
        assert differs.float().mean() < 1e-4
    assert losses["loss"] == pytest.approx(arrays("fgsm", f"{case}/loss/z_loss").item(), rel=1e-5)
    assert losses["visual_loss"] == pytest.approx(arrays("fgsm", f"{case}/loss/z_visual_loss").item(), rel=1e-5)
    assert losses["proprio_loss"] == pytest.approx(arrays("fgsm", f"{case}/loss/z_proprio_loss").item(), rel=1e-5)
    reconstruction = arrays("fgsm", f"{case}/loss/decoder_recon_loss_reconstructed").item()
    assert losses["decoder_loss"] == pytest.approx(reconstruction, rel=1e-5)


def test_an_adversarial_step_is_the_recorded_one(train_step, model, batch, arrays):
    method = RecordedDraws(arrays, radii_method="adaptive")
    stepping = train_step(method)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    method.begin("adaptive0")
    ascent, original = [], model.prediction_loss

    def noting(predicted, target):
        loss = original(predicted, target)
        ascent.append(loss.total.item())
        return loss

    model.prediction_loss = noting
    losses = stepping(batch())
    start = ascent[0]
    # the recorded number contains the reconstruction error, which the ascent leaves out
    reconstruction = arrays("fgsm", "adaptive0/loss/decoder_recon_loss_reconstructed").item()
    assert start + reconstruction == pytest.approx(arrays("fgsm", "adaptive0/loss_before").item(), rel=1e-5)
    assert losses["loss"] > start
    assert_same_ascent(method, losses, arrays, "adaptive0")
    assert_gradients(model, lambda name: arrays("fgsm", f"adaptive0/grad/{name}"))
    recorded_names = [name for name in before if name.split(".")[0] in ("proprio_encoder", "action_encoder")]
    recorded_names += ["predictor.transformer.norm.weight", "predictor.transformer.norm.bias"]
    for name in recorded_names:
        rate = 1e-5 if name.startswith("predictor") else 5e-4
        wanted = arrays("fgsm", f"adaptive0/param_after/{name}")
        found = model.get_parameter(name)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=rate / 100, msg=name)
        assert (found - before[name]).abs().max() > 0.9 * rate  # it moved by about the rate, as Adam's first step does


def test_fixed_radii_are_those_of_the_first_of_two_recorded_steps(train_step, model, batch, arrays):
    method = RecordedDraws(arrays, radii_method="fixed")
    stepping = train_step(method)
    for case, suffix in (("fixed0", ""), ("fixed1", "_second")):
        method.begin(case)
        losses = stepping(batch(suffix))
        assert_same_ascent(method, losses, arrays, case)
