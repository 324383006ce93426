"""Lance tables, as stable-worldmodel writes them, whole and spoilt."""

import pickle

import numpy as np
import pytest
import torch

from datasets.files import DatasetError
from datasets.formats.image_bytes import encoded
from datasets.formats.lance_table import LanceTrajectories
from tests.datasets.columns import LENGTHS, columns

lance = pytest.importorskip("lance", reason="the package pylance is not installed: uv pip install pylance")
arrow = pytest.importorskip("pyarrow")


def write(path, **changes):
    made = columns()
    index = {
        "episode_idx": np.repeat(np.arange(4, dtype=np.int32), LENGTHS),
        "step_idx": np.concatenate([np.arange(length, dtype=np.int32) for length in LENGTHS]),
    }
    lists = {name: made.values[name].astype(np.float32) for name in ("state", "action")}
    values = index | {"pixels": arrow.array([encoded(image) for image in made.values["img"]], arrow.binary())} | lists
    values |= {name: change(values[name]) for name, change in changes.items()}
    for name in ("state", "action"):
        values[name] = arrow.FixedSizeListArray.from_arrays(values[name].reshape(-1), values[name].shape[1])
    lance.write_dataset(arrow.table(values), str(path))
    return made


def test_a_table_is_read_in_place_without_the_last_action_which_is_another(tmp_path):
    made = write(tmp_path / "a.lance")
    data = pickle.loads(pickle.dumps(LanceTrajectories("robot", data_path=str(tmp_path))))
    assert data.lengths.tolist() == [length - 1 for length in LENGTHS] and data.frame_size == 8
    for number, episode in enumerate(made.episodes()):
        assert torch.equal(data.states[number], torch.from_numpy(episode["state"]).float())
        assert torch.equal(data.actions[number], torch.from_numpy(episode["action"])[:-1])
        assert torch.equal(data.frames(number, [5, 0, 5]), torch.from_numpy(episode["img"]).movedim(-1, 1)[[5, 0, 5]])


def test_a_table_is_read_whatever_its_name(tmp_path):
    write(tmp_path / "my data")
    assert len(LanceTrajectories("robot", data_path=str(tmp_path / "my data"))) == 4


SPOILT = {
    "mixed episodes": ({"episode_idx": lambda index: index[::-1] % 2}, "the rows of each episode together"),
    "nan": ({"state": lambda rows: np.full_like(rows, np.nan)}, "finite states, found nan at episode 0, step 0"),
    "no image": ({"pixels": lambda rows: arrow.array([b"x"] * len(rows), arrow.binary())}, "pixels cannot be read"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_tables_are_found_before_training(tmp_path, case):
    changes, message = SPOILT[case]
    write(tmp_path / "a.lance", **changes)
    with pytest.raises(DatasetError, match=message):
        LanceTrajectories("robot", data_path=str(tmp_path / "a.lance"))
    with pytest.raises(DatasetError, match=r"there is no such folder.*did you mean"):
        LanceTrajectories("robot", data_path=str(tmp_path / "a.lanse"))
