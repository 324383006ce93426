"""Numbers on their way to the log, and updates that are refused."""

import pytest
import torch

from tests.training.tiny import STATE, build, changed, weights, without_times
from training.step_metrics import NonFiniteLossError, StepNumbers


def test_numbers_are_those_of_item_in_the_given_order():
    values = {"b": torch.tensor(1.25), "size": 3.0, "a": torch.tensor(0.1, requires_grad=True)}
    numbers = StepNumbers(values, torch.tensor(7.0))
    assert list(numbers) == ["b", "size", "a"] and len(numbers) == 3
    assert dict(numbers) == {"b": 1.25, "size": 3.0, "a": torch.tensor(0.1).item()}
    assert numbers.objective == 7.0
    with pytest.raises(KeyError):
        numbers["objective"]


def test_numbers_are_those_of_their_step_even_if_read_later():
    value = torch.tensor(1.0)
    numbers = StepNumbers({"loss": value}, value)
    value.fill_(2.0)
    assert numbers["loss"] == 1.0


def test_reading_late_changes_neither_log_nor_weights(tmp_path):
    options = (*STATE, "training.save_every_x_batch=3")
    at_once = build(tmp_path / "at_once", *options)
    at_once.fit()
    late = build(tmp_path / "late", *options)
    late.unread_steps = 1  # as beside a GPU
    late.fit()
    assert without_times(late.folder / "logs.json") == without_times(at_once.folder / "logs.json")
    assert not changed(weights(at_once.model), weights(late.model))


@pytest.mark.parametrize("value", ["inf", "nan"])
def test_a_loss_found_not_finite_a_step_late_has_changed_nothing(tmp_path, value):
    training = build(tmp_path / "run", *STATE, "training.save_every_x_batch=3")
    training.unread_steps = 1
    original, before = training.method.loss, []

    def spoilt(windows):
        loss = original(windows)
        before.append((weights(training.model), training.train_step.optimizers.state_dict()))
        return type(loss)(loss.total * float(value), *loss[1:]) if training.step == 4 else loss

    training.method.loss = spoilt
    with pytest.raises(NonFiniteLossError) as caught:
        training.fit()
    assert f"the loss is {value} at step 5 (epoch 1, batch 5, trajectories [" in str(caught.value)
    assert len(before) == 5  # the epoch ended with it; nothing was saved after step 3
    assert [line["step"] for line in without_times(training.folder / "logs.json")] == [1, 2, 3, 4]
    assert not changed(before[4][0], weights(training.model))


def test_after_a_refusal_no_update_follows_and_the_moments_stay(tmp_path):
    training = build(tmp_path / "run", *STATE)
    batch = training.train_data.__getitems__(range(4))
    training.train_step(batch)
    kept = weights(training.model)
    moments = [
        state["exp_avg"].clone()
        for o in training.train_step.optimizers._optimizers.values()
        for state in o.state.values()
    ]
    original = training.method.loss
    training.method.loss = lambda windows: (loss := original(windows))._replace(total=loss.total * float("nan"))
    assert training.train_step(batch).objective != training.train_step(batch).objective  # nan
    training.method.loss = original
    assert training.train_step(batch).objective > 0
    assert not changed(kept, weights(training.model))
    now = [state["exp_avg"] for o in training.train_step.optimizers._optimizers.values() for state in o.state.values()]
    assert all(torch.equal(one, other) for one, other in zip(moments, now, strict=True))
