"""What every command answers before torch is loaded."""

import runpy
import signal
import subprocess
import sys

import pytest

from launch import startup
from tests.builders import REPOSITORY


@pytest.fixture
def enter(monkeypatch, capsys):
    """Enter as train.py does; returns the arguments that are left, or what was said."""
    before = signal.getsignal(signal.SIGINT)

    def run(*arguments, config="train", **options):
        monkeypatch.setattr(sys, "argv", ["x.py", *arguments])
        try:
            startup.check_command_line("python x.py", "Does it.", config, **options)
        except SystemExit as stop:
            return str(stop.code) if stop.code else capsys.readouterr().out
        return sys.argv[1:]

    yield run
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("config", "arguments", "said"),
    [
        ("train", ["traning.epochs=3"], "traning.epochs=3: there is no such setting; did you mean training.epochs?"),
        ("train", ["epochs=3"], "did you mean training.epochs?"),
        ("train", ["env=wal"], "env=wal: env has no option wal; did you mean wall? There are gymnasium, point_maze"),
        ("train", ["metod=online"], "did you mean method"),
        ("train", ["visual_eps_factor=0.1"], "It is a setting of method=adversarial, method=online_adversarial."),
        ("train", ["env=pusht", "env.dataset.split_ratio=0.5"], "dataset=wall, dataset=zarr. All of them"),
        ("train", ["+training.batchsize=4"], "+training.batchsize: nothing reads a setting of that name; did you mean"),
        ("train", ["~training.seed"], "~training.seed: a setting cannot be removed"),
        ("train", ["+anything=4"], "+anything: nothing reads a setting of that name"),
        ("train", ["env.state_dim=3"], "env.state_dim=3: this environment has 2; leave it out, or choose another env"),
        ("train", ["training.seed=[1"], "training.seed=[1 cannot be read"),
        ("train", ["planner@method.planner=gdd", "method=online"], "planner has no option gdd"),
        ("plan_wall", ["planner=gdd"], "did you mean gd"),
        ("plan_wall", ["planner.lr=0.1"], "did you mean planner.sub_planner.lr"),
        ("plan_wall", ["--config-name", "plan_walls"], "there is no such file in conf/; did you mean plan_wall"),
        ("plan_wall", ["-m", "planner=gd,cemm"], "planner has no option cemm"),
        ("plan_wall", ["-m", "planner=gd,mpc_gd", "planner.budget_evals=2"], "with planner=mpc_gd there is no such"),
        ("plan_wall", ["planner=gd,cem"], "add --multirun to your command line"),
        ("collect", ["seeed=3"], "did you mean seed"),
        ("convert", ["dataset=zarrr"], "dataset has no option zarrr; did you mean zarr"),
        ("demo_wall", ["foldr=x"], "did you mean folder?"),
        ("results_wall", ["--config-dir", "nowhere"], "--config-dir nowhere: there is no such folder"),
    ],
    ids=str,
)  # fmt: skip
def test_a_misspelt_name_is_one_line_with_the_nearest_ones(enter, config, arguments, said):
    found = enter(*arguments, config=config, adds=config == "demo_wall")
    assert isinstance(found, str) and found.startswith("error: ") and "\n" not in found
    assert said in found


@pytest.mark.parametrize(
    ("config", "arguments"),
    [
        (
            "train",
            ["method=online", "method.planner.lr=0.1", "planner@method.planner=gd", "+method.visual_eps_factor=1"],
        ),
        (
            "train",
            ["experiment=wall_small", "hydra.run.dir=x", "encoder=dino", "env.state_dim=2"],
        ),
        ("plan_wall", ["--config-name", "plan_pusht.yaml", "planner=cem", "planner.topk=3", "++planner.topk=4"]),
        ("plan_wall", ["-m", "seed=1,2", "planner=gd,cem", "n_evals=3"]),
        ("plan_wall", ["ckpt_path=x", "+trusted_targets=[mine.Planner]"]),
        ("demo_wall", ["+planners.mine=[]"]),
        ("collect", ["env=pusht", "env.collector.shape=[T,I]"]),
    ],
    ids=str,
)
def test_what_is_right_stays_as_it_is(enter, config, arguments):
    assert enter(*arguments, config=config, adds=config == "demo_wall") == arguments


def test_a_setting_of_options_that_are_swept_is_passed_on_so_that_hydra_takes_it(enter):
    given = ["-m", "planner=gd,cem", "planner.budget_evals=200", "n_evals=2"]
    assert enter(*given, config="plan_wall") == [*given[:2], "++planner.budget_evals=200", "n_evals=2"]


def test_help_shows_the_settings_as_they_are_now_with_the_comments_of_the_files(enter):
    text = enter("--help", "method=online", "training.epochs=7")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "training.epochs=7" in lines
    assert "training.predictor_lr=null null: 1e-5 when finetuning, 5e-4 from scratch" in lines
    assert any(line.startswith("method.planner.horizon=5 action blocks") for line in lines)
    assert "* online Online World Modeling: simulator-corrected trajectories of the model's own plans." in lines
    assert "Does it." in lines and not any("hydra.callbacks" in line for line in lines)


@pytest.mark.parametrize(
    "config", ["train", "plan_pusht", "collect", "convert", "preview", "demo_wall", "recipe_wall", "results_wall"]
)
def test_every_command_has_help(enter, config):
    assert "SETTINGS" in enter("-h", config=config)


def test_user_folders_are_known(enter, tmp_path):
    (tmp_path / "planner").mkdir()
    (tmp_path / "planner" / "mine.yaml").write_text("_target_: mine.Planner\nspeed: 3  # of mine\n")
    given = ["--config-dir", str(tmp_path), "planner=mine", "planner.speed=4"]
    assert enter(*given, config="plan_wall") == given
    assert "of mine" in enter(*given, "--help", config="plan_wall")


def test_the_entries_answer_without_torch_and_a_reader_that_leaves_is_no_error():
    code = (
        "import runpy, sys\nsys.argv[1:] = ['--help']\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    print('torch' in sys.modules, file=sys.stderr)\n"
    )
    for entry in ("train.py", "datasets/collect.py"):
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.argv[0] = {entry!r}\n{code}"],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        process.stdout.close()
        said = process.stderr.read()
        assert (process.wait(), said) == (128 + signal.SIGPIPE, "False\n")


@pytest.mark.parametrize("entry", ["train", "plan", "experiments/__main__"])
def test_every_entry_checks_its_command_line_first(monkeypatch, entry):
    monkeypatch.setattr(sys, "argv", ["x.py", "no_such_setting=1"])
    with pytest.raises(SystemExit, match="error: no_such_setting=1: there is no such setting"):
        runpy.run_path(str(REPOSITORY / f"{entry}.py"), run_name="__main__")
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interrupt_before_the_work_is_one_line():
    code = (
        "import signal\nfrom launch import startup\nstartup.end_on_interrupt()\n"
        "try: signal.raise_signal(2)\nfinally: print('cleaning')"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (found.returncode, found.stdout, found.stderr) == (130, "", "interrupted before anything had begun\n")


def test_when_the_work_begins_an_interrupt_is_an_exception_again(enter):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    enter("seed=1", config="plan_wall", entry="plan")
    assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    startup.raise_on_interrupt()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    startup.end_on_interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
