"""Files of other programs in which a tensor is missing or misshapen: one line that names it, whatever it is."""

import pytest
import torch

from models.checkpoints.native import read_checkpoint
from models.foreign.facts import Facts
from models.foreign.inert_pickle import CheckpointError
from tests.builders import jepa_wms_file, numbers

LAYER = "module.transformer.layers.0"


def changed(path, part: str, name: str, tensor: torch.Tensor | None) -> None:
    """Put another tensor, or none, in the place of one of a file's."""
    content = torch.load(path, weights_only=True)
    del content[part][name]
    content[part] |= {} if tensor is None else {name: tensor}
    torch.save(content, path)


@pytest.mark.parametrize(
    ("part", "name", "tensor", "words"),
    [
        ("predictor", "module.pos_embedding", None, r"has no predictor\.pos_embedding"),
        ("predictor", f"{LAYER}.1.net.1.weight", None, r"has no predictor\.transformer\.layers\.0\.1\.net\.1\.weight"),
        ("predictor", f"{LAYER}.0.to_qkv.weight", torch.tensor(1.0), r"to_qkv\.weight has shape \(\), expected are 2"),
        ("predictor", "module.pos_embedding", numbers(1, 64, 3), "tokens have no room for features of an encoder"),
        ("action_encoder", "module.patch_embed.weight", numbers(7), r"action_\S+ has shape \(7,\), expected are 3"),
        ("action_encoder", "module.patch_embed.bias", numbers(1), "action_encoder.* has 2 outputs and 1 biases"),
        ("proprio_encoder", "module.patch_embed.bias", None, r"has no proprio_encoder\.patch_embed\.bias"),
    ],
)
def test_a_tensor_that_sizes_are_read_off_is_named_if_it_is_missing_or_misshapen(tmp_path, part, name, tensor, words):
    path = jepa_wms_file(tmp_path / "dino_wm_pusht.pth.tar")
    changed(path, part, name, tensor)
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path, facts=Facts(heads=2))
