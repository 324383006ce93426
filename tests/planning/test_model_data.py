"""What actions are clipped to: it comes from the model's file, or else from its data."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from datasets.files import DatasetError
from models.checkpoints.own_file import read_about
from planning.model_data import ModelData
from utils.schema import Component

OF_THE_DATA = torch.arange(101.0)[:, None]
RANGE, TABLE = [[-1.0], [1.0]], [[float(n)] for n in range(101)]


def opened(data):
    """A data set that Hydra builds, and whose errors it wraps."""
    if data is None:
        raise DatasetError("no data there")
    return SimpleNamespace(action_quantiles=lambda: data)


def model_data(about, data=OF_THE_DATA):
    env = SimpleNamespace(data=Component({"_target_": f"{__name__}.opened", "data": data}), sizes=None)
    return ModelData(env, SimpleNamespace(about=about, config={}, path="x.pth.tar", foreign=True))


@pytest.mark.parametrize("quantiles", [(0.0, 1.0), (0.02, 0.98)])
def test_they_come_from_the_model_if_it_has_them(quantiles):
    found = model_data({"action_range": RANGE, "action_quantiles": TABLE}, None).action_quantiles(quantiles)
    assert found.tolist() == TABLE


def test_of_an_older_model_the_range_is_used_and_for_quantiles_the_data():
    of_old = model_data({"action_range": RANGE})
    assert of_old.action_quantiles((0.0, 1.0)).tolist() == RANGE
    assert of_old.action_quantiles((0.02, 0.98)) is OF_THE_DATA
    assert of_old.action_quantiles(None) is None
    assert model_data({}).action_quantiles((0.0, 1.0)) is OF_THE_DATA


@pytest.mark.parametrize(
    ("about", "quantiles", "what"), [({}, (0.0, 1.0), "the range"), ({"action_range": RANGE}, (0.1, 0.9), "quantiles")]
)
def test_without_either_one_line_says_so(about, quantiles, what):
    with pytest.raises(ValueError, match=rf"planner\.clip_actions needs {what} of .* \(no data there\): set planner"):
        model_data(about, None).action_quantiles(quantiles)


def test_a_file_of_another_program_without_units_asks_for_them():
    with pytest.raises(ValueError, match=r"x\.pth\.tar brings no statistics .* \(no data there\): set foreign\.stat"):
        model_data({}, None).normalizer()


def test_a_table_that_is_none_is_refused():
    with pytest.raises(ValueError, match="action_quantiles in its world_model entry must be at least two lists"):
        read_about('{"format": "1", "epoch": 1, "action_quantiles": [[1.0]]}', Path("model.safetensors"))
