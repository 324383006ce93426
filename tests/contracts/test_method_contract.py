"""Every option of the group ``method`` keeps the contract of ``training.methods.base.Method``."""

from __future__ import annotations

import functools

import pytest
import torch

from tests.contracts.method_contract import CHECKS, brief
from tests.training.tiny import STATE
from training.assemble import build_trainer
from training.config import TrainConfig
from utils.schema import parsed

SHORT = (
    *STATE,
    "training.epochs=1",
    "training.max_batches=2",
    "training.save_every_x_batch=1",
    "training.num_reconstruct_samples=0",
)


@pytest.fixture(scope="module", autouse=True)
def data(wall_root):
    """A tiny data set of the Wall; the threads are put back afterwards."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DATASET_DIR", str(wall_root))
        yield
    torch.set_num_threads(threads)


def trainer_of(settings, base, folder):
    """The trainer of a run in ``folder`` that begins with the model in ``base``, if there is one."""
    changes = {"method": brief(settings["method"]), "ckpt_path": str(base), "run_dir": str(folder)}
    return build_trainer(parsed(TrainConfig, {**settings, **changes}), set(), torch.device("cpu"))


@pytest.fixture(scope="module")
def base(composing, tmp_path_factory):
    """A model to go on from."""
    folder = tmp_path_factory.mktemp("base")
    trainer = trainer_of(composing(*SHORT), folder / "none", folder / "run")
    trainer.fit()
    return folder / "run"


@pytest.fixture(scope="module")
def make(method_option, composing, base):
    """A function that makes the trainer of a run in a folder."""
    return functools.partial(trainer_of, composing(*SHORT, f"method={method_option}"), base)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_method_keeps_its_contract(check, make, tmp_path):
    check(make, tmp_path)
