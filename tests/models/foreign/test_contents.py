"""What is read of a foreign file before anything is known of its layout."""

import pytest
import torch
from safetensors.torch import save_file

from models.foreign.contents import read_contents
from models.foreign.inert_pickle import CheckpointError


def saved(folder, tensors, suffix):
    path = folder / f"weights.{suffix}"
    save_file(tensors, path) if suffix == "safetensors" else torch.save(tensors, path)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_names_lose_what_wrappers_put_into_them(tmp_path, suffix, wrapper):
    path = saved(tmp_path, {f"{wrapper}a.weight": torch.ones(2), f"b.{wrapper}weight": torch.zeros(3)}, suffix)
    for with_numbers in (True, False):
        assert set(read_contents(path, with_numbers).tensors) == {"a.weight", "b.weight"}


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_two_tensors_of_one_name_are_refused(tmp_path, suffix):
    path = saved(tmp_path, {"a.weight": torch.ones(2), "module.a.weight": torch.zeros(2)}, suffix)
    with pytest.raises(CheckpointError, match=r"holds both a\.weight and module\.a\.weight"):
        read_contents(path)
