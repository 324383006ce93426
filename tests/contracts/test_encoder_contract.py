"""Every option of the group ``encoder`` keeps the contract of ``models.interfaces.Encoder``."""

from __future__ import annotations

import pytest
from hydra.utils import get_class

from models.networks.dinov2 import RANDOM
from tests.contracts.encoder_contract import CHECKS, check_checkpoint, check_model, model_of, shape_of


@pytest.fixture(scope="module")
def config(encoder_option, composing):
    """The settings of a training with this encoder, whose weights are drawn where they would be fetched."""
    found = composing("experiment=wall_small", "has_decoder=false", f"encoder={encoder_option}")
    if get_class(found["encoder"]["_target_"]).observes == "state":
        found = composing("experiment=wall_state", f"encoder={encoder_option}")
    if found["encoder"].get("weights", "") is None:
        found["encoder"]["weights"] = RANDOM
    return found


@pytest.fixture(scope="module")
def model(config):
    """A world model with this encoder."""
    return model_of(config)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_encoder_keeps_its_contract(check, model, config):
    check(model.encoder, shape_of(model.encoder, config["img_size"]))


def test_a_world_model_predicts_from_it(model, config):
    check_model(model, config)


def test_a_checkpoint_brings_it_back(model, config, tmp_path):
    check_checkpoint(model, config, tmp_path)
