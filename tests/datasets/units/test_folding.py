import pytest
import torch

from datasets.units.folding import fold_actions, unfold_actions


def test_a_block_holds_its_raw_actions_in_time_order():
    actions = torch.arange(12.0).view(1, 6, 2)
    blocks = fold_actions(actions, frameskip=3)
    assert blocks.tolist() == [[[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]]
    assert torch.equal(unfold_actions(blocks, env_action_dim=2), actions)


@pytest.mark.parametrize("shape", [(10, 2), (3, 10, 2), (3, 4, 10, 2), (3, 0, 2)])
def test_folding_there_and_back_changes_nothing(shape):
    actions = torch.randn(shape)
    blocks = fold_actions(actions, 5)
    assert blocks.shape == (*shape[:-2], shape[-2] // 5, 10)
    assert torch.equal(unfold_actions(blocks, 2), actions)


def test_actions_that_fill_no_block_are_refused():
    with pytest.raises(RuntimeError, match="unflatten"):
        fold_actions(torch.zeros(1, 7, 2), 5)
