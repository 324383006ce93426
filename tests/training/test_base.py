"""What a training starts from: a finetuning method never trains a new model unless that is meant."""

import logging
from types import SimpleNamespace

import pytest
import torch
from hydra.utils import get_class

from tests.training.tiny import REPOSITORY, STATE, composed, run, train_config
from training.assemble import build_trainer
from training.checks import check_base
from training.state import FILENAME

METHODS = sorted(path.stem for path in (REPOSITORY / "conf" / "method").glob("*.yaml"))


def method_of(option):
    return get_class(composed(f"method={option}", run_dir="r")["method"]["_target_"])


@pytest.fixture
def start(tmp_path):
    """Check a ``ckpt_path`` beside a model directory ``wall_single``."""
    (tmp_path / "wall_single" / "checkpoints").mkdir(parents=True)
    (tmp_path / "wall_single" / "checkpoints" / "model_latest.pth").touch()

    def check(base, method, scratch=False, run_dir="run"):
        base, folder = tmp_path / base, tmp_path / run_dir
        check_base(SimpleNamespace(ckpt_path=str(base), folder=folder, from_scratch=scratch), method)

    return check


@pytest.mark.parametrize("option", METHODS)
def test_only_the_offline_method_starts_without_a_model(start, option):
    method = method_of(option)
    start("wall_single", method)
    if option == "offline":
        start("wall_singel", method)
        return
    with pytest.raises(
        ValueError, match=rf"method={method.name} .*wall_singel.*did you mean \S*/wall_single\? it holds"
    ):
        start("wall_singel", method)
    if method.trains_dynamics:
        start("wall_singel", method, scratch=True)


@pytest.mark.parametrize("option", METHODS)
@pytest.mark.parametrize("inside", ["checkpoints", "checkpoints/model_latest.pth"])
def test_a_path_into_a_model_directory_is_a_mistake_of_any_method(start, option, inside):
    with pytest.raises(ValueError, match=r"did you mean \S*/wall_single\? it holds model_latest\.pth"):
        start(f"wall_single/{inside}", method_of(option))


def test_from_scratch_beside_a_model_is_a_contradiction(start):
    with pytest.raises(ValueError, match=r"from_scratch=true, but ckpt_path=\S*wall_single holds a model"):
        start("wall_single", method_of("online"), scratch=True)


def test_a_run_that_has_begun_goes_on_with_what_it_has(start, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / FILENAME).touch()
    start("nowhere", method_of("online"))


def test_methods_of_others_are_not_taken_for_finetuning(start):
    start("nowhere", SimpleNamespace(name="mine", finetunes=False, trains_dynamics=True))


def test_only_the_first_start_announces_training_from_scratch(tmp_path, caplog):
    brief = (*STATE, "training.epochs=1", "training.num_reconstruct_samples=0")
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "run", *brief)
    assert "there is no such folder): TRAINING FROM SCRATCH" in caplog.text
    caplog.clear()
    config = train_config(*brief, run_dir=str(tmp_path / "run"), ckpt_path=str(tmp_path / "no_base"))
    build_trainer(config, set(), torch.device("cpu"))
    assert "FROM SCRATCH" not in caplog.text
