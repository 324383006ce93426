"""A training that starts from a file of another program, and a plan with what comes of it."""

import pytest
import torch

from models.checkpoints.loading import EncoderConfig, load_for_planning, stored_normalizer
from models.checkpoints.native import read_checkpoint
from models.foreign.facts import Facts
from tests.builders import REPOSITORY, jepa_wms_file
from tests.training.tiny import changed, run, weights
from utils.env_sizes import EnvSizes

WALL = EnvSizes(env_action_dim=2, proprio_dim=2, state_dim=2)
ENCODER = (
    f"encoder.weights={REPOSITORY / 'tests/golden/dinov2_reduced.safetensors'}",
    "encoder.depth=2",
    "encoder.num_heads=3",
)
FACTS = ("foreign.heads=2", "foreign.img_size=65")
BRIEF = ("encoder=dino", "training.epochs=1", "training.max_batches=2", "training.schedule=constant")


@pytest.fixture
def base(tmp_path):
    return jepa_wms_file(tmp_path / "dino_wm_wall.pth.tar", proprio_inputs=2)


def test_it_is_finetuned_in_its_own_units_and_plans(tmp_path, base, wall_root, monkeypatch):
    monkeypatch.setenv("DATASET_DIR", str(wall_root))
    trainer = run(tmp_path / "run", *BRIEF, *ENCODER, *FACTS, f"ckpt_path={base}", "method=adversarial")
    trainer.close()
    before = read_checkpoint(base, facts=Facts(heads=2, img_size=65))
    after = read_checkpoint(tmp_path / "run")
    assert after.about["parent"] == str(base)
    units = stored_normalizer(before, WALL).to_dict()
    assert after.about["normalizer"] == units
    assert units["action_mean"] == pytest.approx([-0.005564616, 0.013197819])
    model, architecture = load_for_planning(after, WALL, EncoderConfig(), torch.device("cpu"))
    assert (architecture.num_hist, architecture.proprio_per_patch) == (2, True)
    started = {name: tensor for name, tensor in before.tensors.items() if name != "predictor.pos_embedding"}
    trained = {name: tensor for name, tensor in weights(model).items() if name in started}
    assert changed(started, trained) >= {"predictor", "action_encoder"}


def test_facts_that_a_model_directory_does_not_need_are_refused(tmp_path, base, wall_root, monkeypatch):
    monkeypatch.setenv("DATASET_DIR", str(wall_root))
    run(tmp_path / "run", *BRIEF, *ENCODER, *FACTS, f"ckpt_path={base}").close()
    with pytest.raises(ValueError, match=r"foreign\.heads has no effect: .* is of no other program's layout"):
        run(tmp_path / "again", *BRIEF, *FACTS, f"ckpt_path={tmp_path / 'run'}")
