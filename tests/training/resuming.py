"""Runs that are interrupted, and whether they end as if they had not been."""

from __future__ import annotations

import torch

from tests.training.tiny import without_times
from training.state import FILENAME


class KilledError(Exception):
    """Stands for the end of the process."""


def final_files(folder):
    """Everything that must not depend on interruptions, by path."""
    files = {path.name: path.read_bytes() for path in (folder / "checkpoints").glob("*.safetensors")}
    files |= {path.name: path.read_bytes() for path in folder.glob("replay/*")}
    return files | {"log": without_times(folder / "logs.json"), "hydra.yaml": (folder / "hydra.yaml").read_bytes()}


def assert_equal_states(one, other, path="state"):
    """Nested containers with equal tensors."""
    assert type(one) is type(other), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            if key != "log":  # its position depends on how many digits a duration has
                assert_equal_states(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal_states(a, b, f"{path}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def assert_same_run(folder, undisturbed):
    """Every lasting file of two run folders is the same, but for what names the folder."""
    found, expected = final_files(folder), final_files(undisturbed)
    expected["hydra.yaml"] = expected["hydra.yaml"].replace(bytes(undisturbed), bytes(folder))
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
    one, other = (torch.load(each / "checkpoints" / FILENAME, weights_only=True) for each in (folder, undisturbed))
    assert_equal_states(one, other)
    assert not [*folder.rglob(".*world-models*"), *folder.rglob(".tmp*")]


def interrupt(trainer, after_steps):
    """End a run without any warning before step ``after_steps + 1``; true if it came to that."""

    def kill(trainer, batch):
        if trainer.step == after_steps:
            raise KilledError

    trainer.on_step.append(kill)
    try:
        trainer.fit()
    except KilledError:
        return True
    return False
