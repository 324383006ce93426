"""Statistics that come with the models of other programs."""

import json

import pytest
import torch

from models.checkpoints.native import read_checkpoint
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from tests.builders import jepa_wms_file, numbers

FILE = "dino_wm_pusht.pth.tar"
PROPRIO = {"mean": [1.0, 2.0, 3.0, 4.0], "std": [1.0, 2.0, 3.0, 4.0]}
OF_BLOCKS = {"mean": [0.1 * n for n in range(10)], "std": [1 + 0.1 * n for n in range(10)]}


@pytest.fixture
def read(tmp_path):
    """Read a small file with these statistics in a file of their own."""

    def with_statistics(content: object):
        (tmp_path / "units.json").write_text(json.dumps(content))
        facts = Facts(heads=2, statistics=str(tmp_path / "units.json"))
        return read_checkpoint(jepa_wms_file(tmp_path / FILE), facts=facts)

    return with_statistics


@pytest.mark.parametrize("flat", [True, False])
def test_those_of_the_user_win_in_either_form(read, flat):
    action = {"mean": [1.0, 2.0], "std": [3.0, 4.0]}
    nested = {"action": action, "proprio": PROPRIO}
    content = {f"{part}_{key}": values for part, group in nested.items() for key, values in group.items()}
    found = read(content if flat else nested).about["statistics"]
    assert found == {f"{part}_{key}": values for part, group in nested.items() for key, values in group.items()}


def test_statistics_of_blocks_become_those_of_an_action_and_the_embedding_stays_the_same(read, tmp_path):
    found = read({"action": OF_BLOCKS, "proprio": PROPRIO})
    raw = numbers(6, 10)

    def embedded(tensors: dict, mean: list[float], std: list[float]) -> torch.Tensor:
        z = (raw - torch.tensor(mean)) / torch.tensor(std)
        weight, bias = (tensors[f"action_encoder.patch_embed.{key}"] for key in ("weight", "bias"))
        return z @ weight[:, :, 0].T + bias

    about = found.about["statistics"]
    assert about["action_mean"] == pytest.approx([0.4, 0.5])
    ours = embedded(found.tensors, about["action_mean"] * 5, about["action_std"] * 5)
    before = read_checkpoint(tmp_path / FILE, facts=Facts(heads=2)).tensors
    torch.testing.assert_close(ours, embedded(before, OF_BLOCKS["mean"], OF_BLOCKS["std"]))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "has no usable action mean; expected"),
        ({"action": {"mean": [0.0, 0.0], "std": [1.0, 0.0]}, "proprio": PROPRIO}, "has no usable action std"),
        ({"action": {"mean": [0.0], "std": [1.0]}, "proprio": PROPRIO}, "statistics of 1 action values, the model 2"),
        (
            {"action": OF_BLOCKS, "proprio": {"mean": [0.0], "std": [1.0]}},
            "statistics of 1 proprio values, the model 4",
        ),
    ],
)
def test_what_does_not_fit_is_named(read, content, words):
    with pytest.raises(CheckpointError, match=words):
        read(content)


def test_a_file_that_is_not_there_is_named_with_its_setting(tmp_path):
    facts = Facts(heads=2, statistics=str(tmp_path / "none.json"))
    with pytest.raises(CheckpointError, match=r"foreign\.statistics=\S*none\.json: "):
        read_checkpoint(jepa_wms_file(tmp_path / FILE), facts=facts)
