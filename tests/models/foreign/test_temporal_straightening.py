"""Temporal-straightening's model directories, against what its own code computed."""

import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from models.checkpoints.native import read_checkpoint
from models.checkpoints.summary import summarise
from models.foreign.dino_wm import UnsafeCheckpointError, read_pickled_checkpoint
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from models.latent import Latent
from models.networks.proprio import ProprioceptiveEmbedding
from models.speed.fast_paths import FastPaths
from planning.objectives import GoalDistance
from tests.builders import foreign_model, golden_arrays, near


@pytest.fixture
def folder(shared_golden) -> Path:
    return shared_golden("layouts/temporal_straightening")


@pytest.fixture
def recorded(folder) -> dict[str, Tensor]:
    return golden_arrays(folder / "outputs.npz")


@pytest.fixture
def model(folder):
    """With the fast modules in their places, which compute the same."""
    model = foreign_model(folder, Facts())
    FastPaths().install(model)
    return model


@pytest.fixture
def seen(model, recorded) -> Latent:
    return model.encode(recorded["in/visual_u8"], recorded["in/proprio"])


@pytest.fixture
def edited(folder, tmp_path):
    """A copy of the recorded directory with other settings in its config."""

    def make(**changes: object) -> Path:
        shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
        (tmp_path / "copy").chmod(0o755)
        config = OmegaConf.load(folder / "hydra.yaml")
        for key, value in changes.items():
            OmegaConf.update(config, key.replace("__", "."), value)
        (tmp_path / "copy/hydra.yaml").unlink()
        OmegaConf.save(config, tmp_path / "copy/hydra.yaml")
        return tmp_path / "copy"

    return make


def test_frames_go_through_the_projector_and_embeddings_through_a_norm(model, recorded, seen):
    near(seen.visual, recorded["visual_emb"], 2e-5)
    near(seen.proprio, recorded["proprio_emb"], 2e-5)
    near(model.action_encoder(recorded["in/act"]), recorded["action_emb"], 2e-5)


def test_predictions_are_the_same(model, recorded, seen):
    for frames in (1, 2):
        found = model.predict_tokens(model.tokens(seen[:, :frames], recorded["in/act"][:, :frames]))
        near(found, recorded[f"predict_t{frames}"], 2e-5)
    near(model.predictor.transformer.norm(recorded["norm_small/in"]), recorded["norm_small/out"], 2e-5)


@pytest.mark.parametrize(
    ("name", "objective"),
    [
        ("last_a0.1", GoalDistance("last", 0.1)),
        ("all_a1_b2", GoalDistance("all", 1.0, 2.0)),
        ("staged0_a1_b2", GoalDistance("staged", 1.0, 2.0).at(0, 5, 1)),
        ("staged4_a1_b2", GoalDistance("staged", 1.0, 2.0).at(5, 5, 1)),
    ],
)
def test_rollouts_costs_and_gradients_are_the_same(model, recorded, seen, name, objective):
    goal = model.encode(recorded["in/goal_visual_u8"], recorded["in/goal_proprio"])
    actions = recorded["in/plan_act"].requires_grad_()
    imagined = model.rollout(seen[:, :1], actions)
    near(imagined.visual, recorded["rollout/visual"], 2e-5)
    near(imagined.proprio, recorded["rollout/proprio"], 2e-5)
    cost = objective(imagined, goal)
    near(cost, recorded[f"objective/{name}"], 2e-5)
    cost.sum().backward()
    near(actions.grad, recorded[f"action_grad/{name}"], 1e-4)


def test_the_decoder_widens_first(model, recorded, seen):
    near(model.decode(seen[:1, :1])[..., ::4, ::4], recorded["decoded_every4th_pixel"], 2e-5)


def test_a_history_of_one_frame_takes_the_first_positions(edited, recorded):
    """A frame alone is seen at the first positions, whatever the history."""
    model = foreign_model(edited(num_hist=1), Facts())
    seen = model.encode(recorded["in/visual_u8"], recorded["in/proprio"])[:, :1]
    near(model.predict_tokens(model.tokens(seen, recorded["in/act"][:, :1])), recorded["predict_t1"], 2e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoder__projector": "global"}, r"encoder\.projector=global; of theirs, channel is read"),
        ({"encoder__projector_config__norm_type": "batch"}, "its projector has norm_type=batch"),
        ({"encoder__projector_config__conv_layers": [{"padding": 0}]}, "padding 0; .* that keep the grid of patches"),
        ({"encoder__projector_config__conv_layers": [{"stride": [1, 2]}]}, r"stride \[1, 2\]; .* that keep the grid"),
    ],
)
def test_other_projectors_are_refused_by_name(edited, changes, words):
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(edited(**changes))


def test_inspect_names_the_layout(folder):
    summary = summarise(folder / "checkpoints/model_latest.pth")
    assert summary.layout == "temporal-straightening, a DINO-WM pickle"
    assert summary.problem is None


class Bound:
    """Pickled as accelerate leaves a module's methods behind: a call of ``getattr``."""

    def __init__(self, holder: object, name: str) -> None:
        self.call = getattr, (holder, name)

    def __reduce__(self):
        return self.call


@pytest.mark.usefixtures("dino_wm_names")
@pytest.mark.parametrize(("holder", "is_read"), [(nn.Linear(1, 1), True), ([], False)])
def test_a_method_is_looked_up_in_nothing(tmp_path, holder, is_read):
    encoders = {part: ProprioceptiveEmbedding(2, 2) for part in ("action_encoder", "proprio_encoder")}
    encoders["action_encoder"].forward = Bound(holder, "forward")
    torch.save({"epoch": 1, **encoders}, tmp_path / "model_1.pth")
    if is_read:
        assert read_pickled_checkpoint(tmp_path / "model_1.pth").epoch == 1
    else:
        with pytest.raises(UnsafeCheckpointError, match=r"builtins\.getattr"):
            read_pickled_checkpoint(tmp_path / "model_1.pth")
