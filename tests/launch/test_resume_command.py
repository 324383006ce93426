"""``resume=<folder>``, where the folder may come from anybody."""

import shutil

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from launch.resume import expand_resume
from tests.builders import REPOSITORY


@pytest.fixture
def run_folder(tmp_path):
    """Write what Hydra leaves behind of a run; returns the function."""

    def write(overrides: list[str], name: str = "run", config_name: str = "plan_wall", sweep: bool = False):
        folder = tmp_path / name
        if sweep:
            folder.mkdir()
            hydra = {"job": {"config_name": config_name}, "overrides": {"task": overrides}}
            OmegaConf.save({"hydra": hydra}, folder / "multirun.yaml")
            return folder
        (folder / ".hydra").mkdir(parents=True)
        OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
        OmegaConf.save({"hydra": {"job": {"config_name": config_name}}}, folder / ".hydra" / "hydra.yaml")
        return folder

    return write


def test_without_resume_the_arguments_stay_what_they_are():
    assert expand_resume(["--config-name", "x", "seed=1"]) == ["--config-name", "x", "seed=1"]


def test_resuming_repeats_the_recorded_command_in_the_same_folder(run_folder):
    folder = run_folder(["ckpt_path=outputs/wall", "planner=gd", "planner.lr=0.1"])
    found = expand_resume([f"resume={folder}", "device=cpu"])
    assert found[:2] == ["--config-name", "plan_wall"]
    assert found[2:5] == ["ckpt_path=outputs/wall", "planner=gd", "planner.lr=0.1"]
    assert found[-1] == "device=cpu"  # after the recorded ones, so that it wins
    assert str(folder) in found[5]


@pytest.mark.parametrize("name", ["plain", "planner=mpc_gd,seed=1", "with space", "it's", "[1]{2}"])
def test_any_folder_name_survives_the_override_grammar(run_folder, name):
    folder = run_folder(["seed=1"], name)
    arguments = [a for a in expand_resume([f"resume={folder}"]) if not a.startswith("--") and a != "plan_wall"]
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        composed = compose("plan_wall", overrides=[*arguments, "ckpt_path=x"], return_hydra_config=True)
    assert composed.hydra.run.dir == str(folder)


REFUSED = [
    "planner=../../../evil/p", "planner=/evil/p", "planner=evil/p", "+planner=../p", "planner@x=../p", "planner=[../p]",
    "planner=gd,../p", "../planner=p", "experiment=no_such", "--config-dir=/evil", "--config-path=/evil", "-cd=/evil",
    "-m", "--multirun", "--experimental-rerun=x.pickle", "hydra.searchpath=[file:///evil]", "+hydra.searchpath=[x]",
    "hydra/launcher=joblib", "planner@hydra.launcher=gd", "hydra.job_logging.handlers.x.class=os.system", "~planner",
    "planner._target_=os.system", "+planner._target_=os.system", "++a={_target_:os.system}",
    "planner.sub_planner._target_=x.y", "+planner.x=[{a: {_target_: x.y}}]", "ckpt_path=${oc.env:HOME}",
    "ckpt_path='a${oc.env:HOME}'", "+planner={lr: '${oc.create:{_target_: x}}'}", "seed=1,${oc.env:X}",
    "trusted_targets=[os.system]", "+trusted_targets=[os.system]", "++env.trusted_targets=[os.system]",
    "+env={trusted_targets: [os.system]}", "run_dir=/etc", "seed", "seed=[1", {"seed": 1}, 5, None, "x/y=z", "a b=c",
    "initnet=../p",
]  # fmt: skip


@pytest.mark.parametrize("item", REFUSED, ids=str)
@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_a_record_that_asks_for_more_than_our_options_is_refused(run_folder, item, sweep):
    folder = run_folder(["seed=1", item], sweep=sweep)
    with pytest.raises(SystemExit, match=r"^error: .*(overrides|multirun)\.yaml: .* cannot be taken from a folder: .*"):
        expand_resume([f"resume={folder}"])


@pytest.mark.parametrize("name", ["../../evil/other", "/evil/other", "no_such", "env/wall", None, 3, ["train"]])
@pytest.mark.parametrize("sweep", [False, True], ids=["run", "sweep"])
def test_so_is_one_that_names_another_config(run_folder, name, sweep):
    with pytest.raises(SystemExit, match="is no config of this project"):
        expand_resume([f"resume={run_folder(['seed=1'], config_name=name, sweep=sweep)}"])


def test_every_kind_of_setting_that_our_commands_use_is_taken(run_folder):
    used = [
        "planner=gd,cem", "objective@method.objective=all", "+experiment=wall_small", "++planner.lr=0.1", "env=glob(*)",
        "ckpt_path='/data/my runs/a=b (1)/ü'", "env.collector.speed=[15.0,31.0]", "seed=choice(1,2)", "decoder=null",
        "planner@method.planner=mpc_gd", "training.epochs=range(1,3)", "goal_file_path=null", "run=${env.name}/x",
    ]  # fmt: skip
    assert expand_resume([f"resume={run_folder(used)}"])[2:-2] == used


def test_options_of_a_folder_that_is_named_now_are_taken(run_folder, tmp_path):
    folder = run_folder(["planner=mine"])
    (tmp_path / "own" / "planner").mkdir(parents=True)
    (tmp_path / "own" / "planner" / "mine.yaml").write_text("_target_: mine.Planner")
    with pytest.raises(SystemExit, match="nor of a folder that you named with --config-dir"):
        expand_resume([f"resume={folder}"])
    assert "planner=mine" in expand_resume([f"resume={folder}", "--config-dir", str(tmp_path / "own")])


def test_a_folder_of_the_other_script_names_the_command(run_folder):
    trained, planned = run_folder([], "a", "train"), run_folder([], "b", "plan_wall.yaml")
    with pytest.raises(SystemExit, match=r"a is a training run: continue it with .*train\.py resume=.*; to evaluate"):
        expand_resume([f"resume={trained}"], "plan")
    with pytest.raises(SystemExit, match=r"b is an evaluation: continue it with python plan\.py resume=.*b"):
        expand_resume([f"resume={planned}"], "train")
    assert expand_resume([f"resume={planned}"], "plan")[1] == "plan_wall"


def test_a_folder_that_is_no_run_is_one_line(tmp_path, run_folder):
    with pytest.raises(SystemExit, match=r"error: resume=.*nowhere: there is no run to resume"):
        expand_resume([f"resume={tmp_path / 'nowhere'}"])
    folder = run_folder([])
    shutil.rmtree(folder / ".hydra")
    with pytest.raises(SystemExit, match="there is no run to resume"):
        expand_resume([f"resume={folder}"])


@pytest.mark.parametrize("name", ["a" * 300, "~nobody-of-this-name/run"])
def test_so_is_one_whose_name_cannot_be(name):
    with pytest.raises(SystemExit, match=r"^error: "):
        expand_resume([f"resume={name}"])
