import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from models.architecture import DEFAULTS, PARTS, SCALARS, Architecture
from models.build import build_world_model
from models.checkpoints.native import Checkpoint, CheckpointError, read_checkpoint, write_model_config
from models.checkpoints.stored_architecture import settle_architecture, stored_architecture
from models.networks.residual import ResidualViT
from tests.builders import option, wall_architecture, wall_model_directory


def wall(**changes) -> Architecture:
    return Architecture.from_dict(wall_architecture(**changes))


@pytest.fixture
def folder(tmp_path):
    return wall_model_directory(tmp_path / "run")


def checkpoint(folder, **changes) -> Checkpoint:
    """The checkpoint of ``folder`` after changes to its hydra.yaml; None removes a key."""
    config = OmegaConf.load(folder / "hydra.yaml")
    for key, value in changes.items():
        if value is None:
            del config[key]
        else:
            config[key] = value
    write_model_config(folder, OmegaConf.to_container(config))
    return read_checkpoint(folder)


def test_what_is_stored_is_what_was_written(folder):
    assert stored_architecture(read_checkpoint(folder)).as_dict() == wall_architecture()


def test_arguments_that_only_the_class_knows_are_kept(tmp_path):
    encoder = option("proprio_encoder", "fixed", seed=3)
    folder = wall_model_directory(tmp_path, proprio_encoder=encoder)
    assert stored_architecture(read_checkpoint(folder)).proprio_encoder.settings["seed"] == 3


def test_from_scratch_everything_comes_from_the_config():
    config = Architecture.from_dict({**wall_architecture(), "seed": 1, "planner": {}})
    assert settle_architecture(config, set(), None).as_dict() == wall_architecture()


def test_values_come_from_the_checkpoint_where_the_user_said_nothing(folder):
    config = wall(num_hist=3, frameskip=1, action_emb_dim=4, predictor=option("predictor", "vit"))
    settled = settle_architecture(config, {"planner", "training.epochs"}, read_checkpoint(folder))
    assert settled == wall()


@pytest.mark.parametrize("key", SCALARS)
def test_an_override_that_contradicts_the_checkpoint_names_key_and_both_values(folder, key):
    stored = wall_architecture()[key]
    wanted = (not stored) if isinstance(stored, bool) else stored + 1
    with pytest.raises(ValueError, match=rf"{key}={wanted} was asked for, the checkpoint has {key}={stored}"):
        settle_architecture(wall(**{key: wanted}), {key}, read_checkpoint(folder))


def test_an_override_that_agrees_is_no_contradiction(folder):
    assert settle_architecture(wall(), set(SCALARS) | set(PARTS), read_checkpoint(folder))


def test_another_class_of_a_part_is_a_contradiction_only_if_it_was_asked_for(folder):
    config = wall(encoder=option("encoder", "dino"))
    with pytest.raises(ValueError, match=r"encoder models\.networks\.dinov2.* checkpoint has models\.networks\.sm"):
        settle_architecture(config, {"encoder"}, read_checkpoint(folder))
    settled = settle_architecture(config, set(), read_checkpoint(folder))
    assert settled.encoder == wall().encoder


def test_another_argument_of_a_part_is_a_contradiction(folder):
    config = wall().with_arguments("predictor", depth=9)
    with pytest.raises(ValueError, match=r"predictor\.depth=9 was asked for, the checkpoint has predictor\.depth=1"):
        settle_architecture(config, {"predictor.depth"}, read_checkpoint(folder))


def test_several_contradictions_are_listed_together(folder):
    config = wall(num_hist=2, img_size=224)
    with pytest.raises(ValueError, match=r"num_hist=2.*img_size=224"):
        settle_architecture(config, {"num_hist", "img_size"}, read_checkpoint(folder))


def test_dropout_may_differ_from_the_checkpoint(folder):
    config = wall().with_arguments("predictor", dropout=0.25)
    settled = settle_architecture(config, {"predictor.dropout"}, read_checkpoint(folder))
    assert settled.predictor.settings["dropout"] == 0.25


@pytest.mark.parametrize("key", [key for key in (*SCALARS, *PARTS) if key not in DEFAULTS])
def test_a_key_that_is_missing_is_named_with_its_file(folder, key):
    with pytest.raises(CheckpointError, match=rf"hydra\.yaml lacks {key};"):
        stored_architecture(checkpoint(folder, **{key: None}))


@pytest.mark.parametrize(("key", "value"), [("num_hist", "three"), ("frameskip", 5.5), ("has_decoder", "yes")])
def test_a_value_of_another_type_is_named(folder, key, value):
    with pytest.raises(CheckpointError, match=rf"hydra\.yaml: {key} must be of type \w+, got '?{value}"):
        stored_architecture(checkpoint(folder, **{key: value}))


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that betrays being imported; returns (module name, was it?)."""
    (tmp_path / "trap_module.py").write_text("class Part:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "trap_module.Part", lambda: "trap_module" in sys.modules
    sys.modules.pop("trap_module", None)


@pytest.mark.parametrize("part", PARTS)
def test_an_unknown_class_is_refused_and_never_imported(folder, trap, part):
    target, was_imported = trap
    with pytest.raises(CheckpointError, match=rf"hydra\.yaml: {part}\._target_ is 'trap_module\.Part'; known are"):
        stored_architecture(checkpoint(folder, **{part: {"_target_": target}}))
    assert not was_imported()


@pytest.mark.parametrize(
    "value",
    [
        {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": ["pwned"]}},
        [{"_target_": "trap_module.Part"}],
        "${oc.create:{_target_:trap_module.Part}}",
    ],
    ids=["nested", "listed", "interpolated"],
)
def test_a_class_hidden_in_an_argument_is_refused_and_never_called(folder, trap, value, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    predictor = wall_architecture()["predictor"] | {"width": value}
    config = read_checkpoint(folder).config | {"predictor": predictor}
    found = Checkpoint(folder / "checkpoints/model_latest.safetensors", {}, config, 1)
    with pytest.raises(CheckpointError, match=r"hydra\.yaml: predictor\.width must be a plain value"):
        build_world_model(stored_architecture(found), 2, 2, 2)
    assert not trap[1]()
    assert not Path("pwned").exists()


def test_a_class_hidden_in_a_foreign_config_is_refused(shared_golden, trap):
    found = read_checkpoint(shared_golden("checkpoints/wall_h1"))
    found.config["decoder"] = found.config["decoder"] | {"channel": {"_target_": trap[0]}}
    with pytest.raises(CheckpointError, match=r"hydra\.yaml: decoder\.channel must be a plain value"):
        stored_architecture(found)
    assert not trap[1]()


@pytest.mark.parametrize("part", ["predictor", "action_encoder", "proprio_encoder"])
def test_a_foreign_class_without_counterpart_is_named(shared_golden, part):
    found = read_checkpoint(shared_golden("checkpoints/wall_h1"))
    found.about["classes"][part] = "models.dummy.DummyModel"
    with pytest.raises(CheckpointError, match=rf"the {part} is a models\.dummy\.DummyModel.* it reads models\."):
        stored_architecture(found)


def test_a_decoder_without_counterpart_is_left_out(shared_golden, caplog):
    found = read_checkpoint(shared_golden("checkpoints/wall_h1"))
    found.about["classes"]["decoder"] = "models.decoder.transposed_conv.TransposedConvDecoder"
    assert stored_architecture(found).has_decoder is False
    assert "TransposedConvDecoder, has no counterpart here" in caplog.text


def test_recorded_checkpoints_translate(shared_golden):
    stored = stored_architecture(read_checkpoint(shared_golden("checkpoints/pusht_h3")))
    assert (stored.num_hist, stored.frameskip, stored.action_emb_dim) == (3, 5, 10)
    assert stored.predictor.settings["_target_"] == "models.networks.vit.ViTPredictor"
    assert (stored.predictor.settings["depth"], stored.predictor.settings["dim_head"]) == (2, 16)
    assert stored.encoder.settings["name"] == "dinov2_vits14"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [("concat_dim", 2, r"\[0, 1\]"), ("num_pred", 2, "1"), ("num_hist", 0, "1"), ("frameskip", 0, "1")],
)
def test_values_that_cannot_be_built_name_the_key(key, value, allowed):
    with pytest.raises(ValueError, match=rf"{key} must be .*{allowed}.*got {value}"):
        build_world_model(wall(**{key: value}), 2, 2, 2)


def test_a_missing_part_is_named():
    architecture = wall_architecture()
    del architecture["predictor"]
    with pytest.raises(ValueError, match="the architecture lacks predictor"):
        Architecture.from_dict(architecture)


def test_the_sizes_of_the_parts_follow_from_each_other():
    model = build_world_model(wall(num_hist=2), env_action_dim=3, proprio_dim=4, state_dim=5)
    assert isinstance(model.predictor, ResidualViT)
    assert model.layout.token_dim == 32 + 10 + 10
    assert model.predictor.vit.pos_embedding.shape == (1, 2 * 16, 8)
    assert model.action_encoder.in_dim == 3 * 5
    assert model.proprio_encoder.in_dim == 4
    assert model.decoder.img_size == 65


def test_a_model_may_be_built_without_predictor_and_decoder():
    model = build_world_model(wall(has_predictor=False, has_decoder=False), 2, 2, 2)
    assert model.predictor is None
    assert model.decoder is None
