"""``plan.py ckpt_path=X`` plans in the environment that X was trained in, with that environment's goal defaults."""

import signal
import sys

import pytest

from launch import startup
from launch.named_environment import ENVIRONMENTS, with_config_name
from tests.training.tiny import REPOSITORY, composed


@pytest.fixture
def model(tmp_path):
    """Write a model directory's ``hydra.yaml``; returns its path."""

    def write(text, name="a model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hydra.yaml").write_text(text)
        return tmp_path / name

    return write


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_the_checkpoint_names_the_environment_and_its_goals(model, env):
    folder = model(f"env: {{name: {env}}}\n")
    for argument in (f"ckpt_path={folder}", f"ckpt_path='{folder}'", f"++ckpt_path={folder}/"):
        chosen = with_config_name(["seed=1", argument])
        assert chosen == ["--config-name", f"plan_{env}", "seed=1", argument]
    config = composed(name=chosen[1], run_dir="r", ckpt_path=str(folder))
    assert config["env"]["name"] == env
    assert config["goal_source"] == ("dset" if env == "pusht" else "random_state")


@pytest.mark.parametrize(
    "arguments", [["env=wall"], ["-cn", "plan"], ["--config-name=plan_wall"], ["--config-dir", "mine"], ["resume=x"]]
)
def test_what_the_user_names_wins(model, arguments):
    given = [*arguments, f"ckpt_path={model('env: {name: pusht}')}"]
    assert with_config_name(given) == given


@pytest.mark.parametrize(
    "text",
    ["env: {name: ../../mine}", "env: {name: [pusht]}", "env: pusht", "a: [", "env: {name: !!python/name:os.system }"],
)
def test_nothing_else_that_a_checkpoint_says_chooses_a_configuration(model, text):
    given = [f"ckpt_path={model(text)}"]
    assert with_config_name(given) == given


def test_a_path_that_leads_nowhere_or_none_at_all_changes_nothing():
    for given in ([], ["seed=1"], ["ckpt_path"], ["ckpt_path=nowhere"], ["ckpt_path=~nobody-here/x"]):
        assert with_config_name(given) == given


def test_a_sweep_over_checkpoints_of_one_environment(model):
    one, two, other = (
        model(f"env: {{name: {env}}}", name) for name, env in zip("abc", ("pusht", "pusht", "wall"), strict=True)
    )
    assert with_config_name(["-m", f"ckpt_path={one},{two}"])[:2] == ["--config-name", "plan_pusht"]
    assert with_config_name(["-m", f"ckpt_path={one},{other}"])[0] == "-m"


def test_every_environment_that_it_knows_has_its_file():
    assert {path.stem for path in (REPOSITORY / "conf").glob("plan_*.yaml")} == {f"plan_{env}" for env in ENVIRONMENTS}


def test_the_command_does_it(model, monkeypatch):
    folder = model("env: {name: pusht}")
    monkeypatch.setattr(sys, "argv", ["plan.py", f"ckpt_path={folder}"])
    before = signal.getsignal(signal.SIGINT)
    startup.check_command_line("python plan.py", None, "plan_wall", entry="plan")
    signal.signal(signal.SIGINT, before)
    assert sys.argv[1:] == ["--config-name", "plan_pusht", f"ckpt_path={folder}"]


def test_a_folder_for_a_hub_says_its_environment_in_its_config(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": {"env": {"name": "pusht"}}}')
    assert with_config_name([f"ckpt_path={tmp_path}"]) == ["--config-name", "plan_pusht", f"ckpt_path={tmp_path}"]
    (tmp_path / "config.json").write_text('{"_target_": "somebody.elses"}')
    assert with_config_name([f"ckpt_path={tmp_path}"]) == [f"ckpt_path={tmp_path}"]
