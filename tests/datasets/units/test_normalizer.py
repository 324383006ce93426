"""Raw units to z-scores and back."""

import json

import numpy as np
import pytest
import torch

from datasets.units.normalizer import Normalizer

PUSHT = {
    "action_mean": [-0.0087, 0.0068],
    "action_std": [0.2019, 0.2002],
    "state_mean": [236.6155, 264.5674, 255.1307, 266.3721, 1.9584, -2.93032027, 2.54307914],
    "state_std": [101.1202, 87.0112, 52.7054, 57.4971, 1.7556, 74.84556075, 74.14009094],
    "proprio_mean": [236.6155, 264.5674, -2.93032027, 2.54307914],
    "proprio_std": [101.1202, 87.0112, 74.84556075, 74.14009094],
}


@pytest.mark.parametrize("recorded", ["point_maze", "wall"], indirect=True)  # PushT has published constants instead
def test_fitted_statistics_equal_the_recorded_ones(recorded, slicer):
    name, trajectories = recorded
    for part, values in trajectories.normalizer.to_dict().items():
        np.testing.assert_allclose(values, slicer[f"{name}/{part}"], rtol=1e-6, atol=1e-7, err_msg=part)


def test_constants_from_a_dict_equal_the_recorded_ones(slicer):
    normalizer = Normalizer.from_dict(PUSHT)
    for part, values in normalizer.to_dict().items():
        assert np.float32(values).tolist() == slicer[f"pusht/{part}"].tolist(), part


def test_a_block_is_normalised_like_its_actions_one_by_one():
    normalizer = Normalizer.from_dict(PUSHT)
    raw = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one_by_one = (raw - torch.tensor([-0.0087, 0.0068])) / torch.tensor([0.2019, 0.2002])
    blocks = normalizer.actions_to_z(raw.flatten(2))
    assert blocks.shape == (3, 4, 10) and blocks.dtype == torch.float32
    torch.testing.assert_close(blocks.unflatten(2, (5, 2)), one_by_one.float())
    torch.testing.assert_close(normalizer.actions_to_raw(blocks), raw.flatten(2).float())


def test_conversion_is_differentiable():
    z = torch.zeros(1, 10, requires_grad=True)
    (gradient,) = torch.autograd.grad(Normalizer.from_dict(PUSHT).actions_to_raw(z).sum(), z)
    torch.testing.assert_close(gradient, torch.tensor([[0.2019, 0.2002] * 5]))


def test_dict_survives_json_exactly():
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(50, width, generator=generator) for width in (2, 4, 3)]
    written = Normalizer.fit(*rows)
    read = Normalizer.from_dict(json.loads(json.dumps(written.to_dict())))
    for part in PUSHT:
        assert torch.equal(getattr(read, part), getattr(written, part))


def test_deviation_is_unbiased():
    normalizer = Normalizer.fit(
        torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]])
    )
    assert normalizer.action_std.item() == pytest.approx(2**0.5)


def test_identity_changes_nothing():
    normalizer = Normalizer.identity(2, 4, 3)
    actions, states, proprio = torch.randn(7, 10), torch.randn(7, 4), torch.randn(7, 3)
    assert torch.equal(normalizer.actions_to_z(actions), actions)
    assert torch.equal(normalizer.actions_to_raw(actions), actions)
    assert torch.equal(normalizer.states_to_z(states), states)
    assert torch.equal(normalizer.proprio_to_z(proprio), proprio)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"action_std": [0.2, 0.0]}, "normalize_action=false"),
        ({"state_mean": [float("nan")] * 7}, "state_mean must be finite"),
        ({"proprio_mean": [0.0]}, "vectors of one length"),
    ],
)
def test_unusable_statistics_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Normalizer.from_dict(PUSHT | change)


def test_wrong_entries_and_shapes_are_refused():
    with pytest.raises(ValueError, match="action_mean"):
        Normalizer.from_dict({"action_mean": [0.0]})
    normalizer = Normalizer.from_dict(PUSHT)
    with pytest.raises(ValueError, match="multiple of 2"):
        normalizer.actions_to_raw(torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"\(\.\.\., 4\)"):
        normalizer.proprio_to_z(torch.zeros(4, 7))
