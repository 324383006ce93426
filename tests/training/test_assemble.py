"""From a config to a trainer: what a checkpoint brings, what the data must be."""

import shutil

import pytest
import torch

import training.start
from datasets.collecting.collection import Collection
from datasets.formats.wall import WallWriter
from envs.wall.expert import WallRandomWalk
from envs.wall.vector_env import WallVectorEnv
from launch.command_line import overridden_keys
from models.checkpoints.config_file import read_model_config
from models.checkpoints.native import read_checkpoint
from models.checkpoints.stored_architecture import settle_architecture
from tests.training.tiny import SMALL, build, changed, header, run, train_config, weights, without_times
from training.assemble import build_trainer
from utils.files import sha256

ODD = ("action_emb_dim=6", "predictor.width=32", "N=3", "training.epochs=1", "training.max_batches=2")
"""A base unlike the defaults."""


@pytest.fixture(scope="module")
def base(tmp_path_factory, wall_root):
    """A model directory to start from."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DATASET_DIR", str(wall_root))
        return run(tmp_path_factory.mktemp("base") / "base", *ODD).folder


def finetune(tmp_path, base, *overrides):
    return build(tmp_path / "run", f"ckpt_path={base}", *overrides)


def test_the_architecture_is_taken_from_the_checkpoint(tmp_path, base):
    training = finetune(tmp_path, base)  # the config says 10 and 64
    assert training.model.layout.action_dim == 6
    assert training.model.predictor.embed.out_features == 32
    assert training.model.layout.token_dim == 32 + 10 + 6
    stored = read_model_config(training.folder / "hydra.yaml")
    assert (stored["action_emb_dim"], stored["predictor"]["width"]) == (6, 32)
    assert stored["training"]["epochs"] == 2  # not an architecture value


def test_training_starts_from_the_weights_of_the_checkpoint_and_says_so(tmp_path, base):
    training = finetune(tmp_path, base, "training.epochs=1")
    expected = read_checkpoint(base).tensors
    found = weights(training.model)
    assert found.keys() == expected.keys()
    assert not changed(expected, found)
    training.fit()
    about = header(training.folder / "checkpoints" / "model_1.safetensors")
    parent = base / "checkpoints" / "model_latest.safetensors"
    assert about["parent"] == str(parent)
    assert about["parent_sha256"] == sha256(parent)
    assert header(parent)["parent"] is None
    assert changed(expected, weights(training.model)) == {"predictor", "action_encoder"}
    grandchild = build(tmp_path / "again", f"ckpt_path={training.folder}")
    assert grandchild.files.about["parent"] == str(training.folder / "checkpoints" / "model_latest.safetensors")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("action_emb_dim=10", "action_emb_dim=10 was asked for, the checkpoint has action_emb_dim=6"),
        ("num_hist=3", "num_hist=3 was asked for, the checkpoint has num_hist=1"),
        ("frameskip=1", "frameskip=1 was asked for, the checkpoint has frameskip=5"),
        ("concat_dim=0", "concat_dim=0 was asked for, the checkpoint has concat_dim=1"),
        ("img_size=224", "img_size=224 was asked for, the checkpoint has img_size=65"),
        ("has_decoder=false", "has_decoder=False was asked for, the checkpoint has has_decoder=True"),
        ("predictor.width=64", "predictor.width=64 was asked for, the checkpoint has predictor.width=32"),
        (
            "predictor=vit",
            "predictor models.networks.vit.ViTPredictor was asked for, the checkpoint has models.networks.residual.R",
        ),
        (
            "encoder=state",
            "encoder models.networks.state_encoder.StateEncoder was asked for, the checkpoint has models.networks.",
        ),
        ("env.name=pusht", "env=pusht was asked for, but"),
    ],
)
def test_an_override_that_contradicts_the_checkpoint_names_both_values(tmp_path, base, override, message):
    with pytest.raises(ValueError) as caught:
        finetune(tmp_path, base, override)
    assert message in str(caught.value)
    assert str(base) in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_overrides_that_agree_with_the_checkpoint_are_welcome(tmp_path, base):
    finetune(tmp_path, base, "num_hist=1", "action_emb_dim=6", "predictor.width=32", "predictor=residual")


def test_dropout_may_be_changed_when_finetuning(tmp_path, base):
    assert (
        finetune(tmp_path, base, "predictor.dropout=0.3").model.predictor.vit.transformer.layers[0][0].dropout.p == 0.3
    )


def test_finetuning_keeps_the_units_of_the_base(tmp_path, base, wall_root, monkeypatch):
    other = tmp_path / "other" / "wall_single"
    shutil.copytree(wall_root / "wall_single", other)
    torch.save(torch.load(other / "actions.pth") * 2, other / "actions.pth")
    monkeypatch.setenv("DATASET_DIR", str(other.parent))
    training = finetune(tmp_path, base)
    assert (
        training.train_step.observer.normalizer.to_dict()
        == header(base / "checkpoints/model_latest.safetensors")["normalizer"]
    )
    fresh = build(tmp_path / "fresh")
    torch.testing.assert_close(
        fresh.train_step.observer.normalizer.action_std, 2 * training.train_step.observer.normalizer.action_std
    )
    ratio = training.train_data._actions_z.std() / fresh.train_data._actions_z.std()
    assert ratio.item() == pytest.approx(2, rel=0.01)  # the doubled actions look doubled to a model that knew the old


def test_what_a_model_was_validated_on_stays_out_of_the_training_of_its_descendants(tmp_path, base):
    stored = header(base / "checkpoints" / "model_latest.safetensors")["validation"]
    held_out = set(stored)
    assert len(held_out) == 4 and stored != sorted(stored)
    again = finetune(tmp_path, base)
    assert again.files.about["validation"] == stored  # in the same order: an evaluation draws the same episodes
    assert set(again.validation.data.trajectory.tolist()) == held_out
    fewer = build(tmp_path / "fewer", f"ckpt_path={base}", "env.dataset.n_rollout=9")  # a split of its own would differ
    assert set(fewer.train_data.trajectory.tolist()) == set(range(9)) - held_out
    assert set(fewer.validation.data.trajectory.tolist()) == held_out & set(range(9))
    assert fewer.files.about["validation"] == [number for number in stored if number < 9]
    for override, message in (
        ("env.dataset.split_seed=1", r"env.dataset.split_seed=1 was asked for, .* was trained with 42"),
        ("env.dataset.split_ratio=0.5", r"env.dataset.split_ratio=0.5 was asked for, .* was trained with 0.7"),
    ):
        with pytest.raises(ValueError, match=message):
            build(tmp_path / "split", f"ckpt_path={base}", override)
    count = min(held_out)
    with pytest.raises(ValueError, match=rf"none of the {count} trajectories .* whose first number is {count}"):
        build(tmp_path / "few", f"ckpt_path={base}", f"env.dataset.n_rollout={count}", "training.batch_size=1")


def test_validation_trajectories_are_never_trained_on(tmp_path):
    training = build(tmp_path / "run")
    assert set(training.files.about["validation"]) == set(training.validation.data.trajectory.tolist())
    assert set(training.validation.data.trajectory.tolist()).isdisjoint(training.train_data.trajectory.tolist())


class Counted:
    """Counts the frames that are read."""

    def __init__(self, monkeypatch):
        from datasets.formats.wall import WallTrajectories

        self.frames, original = [], WallTrajectories.frames

        def frames(trajectories, number, steps):
            self.frames += [(number, step) for step in steps]
            return original(trajectories, number, steps)

        monkeypatch.setattr(WallTrajectories, "frames", frames)


def test_frames_are_read_to_calibrate_only_where_something_is_measured(tmp_path, base, monkeypatch):
    counted = Counted(monkeypatch)
    fresh = build(tmp_path / "fresh")
    trained_on = set(fresh.train_data.trajectory.tolist())
    assert {number for number, _ in counted.frames} == trained_on  # from all over the training part
    assert len(set(counted.frames)) == len(counted.frames) == 8 * 40  # none twice
    assert fresh.model.encoder.calibrated
    counted.frames.clear()
    finetuned = finetune(tmp_path, base)
    assert torch.equal(finetuned.model.encoder.mean, read_checkpoint(base).tensors["encoder.mean"])
    sizes = ("encoder.weights=random", "+encoder.embed_dim=24", "+encoder.depth=1", "+encoder.num_heads=2")
    build(tmp_path / "dino", "encoder=dino", "decoder=vqvae", *sizes)
    assert not counted.frames  # a pretrained encoder has nothing to measure, a finetuned one has measured


def test_workers_that_read_images_change_nothing(tmp_path):
    one, other = (
        run(tmp_path / str(workers), "training.max_batches=3", f"env.num_workers={workers}") for workers in (0, 1)
    )
    assert not changed(weights(one.model), weights(other.model))
    assert without_times(one.folder / "logs.json") == without_times(other.folder / "logs.json")


def test_a_base_without_decoder_stays_without(tmp_path):
    plain = run(tmp_path / "base", "has_decoder=false", "training.epochs=1", "training.max_batches=1")
    assert not any(name.startswith("decoder") for name in read_checkpoint(plain.folder).tensors)
    finetuned = finetune(tmp_path, plain.folder)
    assert finetuned.model.decoder is None
    finetuned.fit()


@pytest.mark.parametrize("method", ["adversarial", "online"])
def test_a_checkpoint_of_the_original_is_finetuned(tmp_path, shared_golden, golden, monkeypatch, method):
    """The pickled Wall model, with its reduced encoder in the place of the real one, on 224-pixel float images."""
    folder = shared_golden("checkpoints/wall_h1/hydra.yaml").parent
    data = Collection(WallRandomWalk(), WallVectorEnv, WallWriter(), tmp_path / "wall_single", 3, 32).run(num_workers=1)
    reduced = {"embed_dim": 48, "depth": 2, "num_heads": 3, "weights": str(golden("dinov2_reduced.safetensors"))}

    def settle(*arguments):
        return settle_architecture(*arguments).with_arguments("encoder", **reduced)

    monkeypatch.setattr(training.start, "settle_architecture", settle)
    options = ["replay_buffer_frequency=1", "method.planner.opt_steps=1"] if method == "online" else []
    given = (
        "env=wall",
        "num_hist=1",
        f"method={method}",
        "device=cpu",
        "num_threads=1",
        f"env.dataset.data_path={data}",
    )
    sizes = ("training.batch_size=2", "training.max_batches=2", "training.epochs=1", "training.val_batches=1")
    trainer = build_plain(tmp_path / "run", folder, *given, *sizes, "env.dataset.split_ratio=0.67", *options)
    assert learning_rates(trainer) == {"predictor": 1e-5, "action_encoder": 5e-4}
    before = weights(trainer.model)
    trainer.fit()
    assert changed(before, weights(trainer.model)) == {"predictor", "action_encoder", "proprio_encoder"}
    written = read_checkpoint(trainer.folder)
    assert written.about["parent"] == str((folder / "checkpoints" / "model_latest.pth").resolve())
    assert written.about["encoder_sha256"] == sha256(golden("dinov2_reduced.safetensors"))
    assert not any(name.startswith("encoder.") for name in written.tensors)


def build_plain(folder, base, *overrides):
    """Without the overrides that the other tests share."""
    config = train_config(*overrides, run_dir=str(folder), ckpt_path=str(base))
    return build_trainer(config, overridden_keys(overrides), torch.device("cpu"))


def learning_rates(trainer):
    return dict(trainer.train_step.optimizers._peaks)


def test_the_short_settings_are_what_these_tests_think(tmp_path):
    assert "training.max_batches=5" in SMALL
    assert build(tmp_path / "run").epoch_batches == 5
