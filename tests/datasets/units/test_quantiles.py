import pytest
import torch

from datasets.units.quantiles import at_quantiles, quantile_table


def test_quantiles_are_those_of_each_column():
    values = torch.stack([torch.arange(1001.0), -torch.arange(1001.0)], 1)[torch.randperm(1001)]
    table = quantile_table(values)
    assert table.shape == (101, 2) and table.dtype == values.dtype
    found = at_quantiles(table, (0, 0.02, 0.07, 0.985, 1))
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 20.0, 70.0, 985.0, 1000.0]))
    torch.testing.assert_close(found[:, 1], torch.tensor([-1000.0, -980.0, -930.0, -15.0, 0.0]))


def test_few_and_wild_values_leave_the_ends_exact():
    table = quantile_table(torch.tensor([[1e30], [-7.0], [0.1]]))
    assert table[[0, 50, 100], 0].tolist() == pytest.approx([-7.0, 0.1, 1e30])
    assert at_quantiles(torch.tensor([[-1.0], [3.0]]), (0, 1)).flatten().tolist() == [-1.0, 3.0]
