"""``python train.py`` as users type it: results, errors of one line, kills and signals."""

import json
import random
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

import plan
import train
from launch.resume import expand_resume
from launch.sweep_names import name_sweep
from models.checkpoints.config_file import read_model_config
from models.checkpoints.native import read_checkpoint
from tests.training.tiny import BRIEF_PLANS, SMALL, STATE, header, without_times
from training.state import FILENAME

pytestmark = pytest.mark.usefixtures("data_root")
BRIEF = (
    "training.batch_size=4",
    "training.epochs=1",
    "training.max_batches=2",
    "training.val_batches=1",
    "training.num_reconstruct_samples=0",
    "device=cpu",
    "num_threads=1",
)
"""For commands that bring their own model."""

BRIEF_STATE = (*STATE, "training.epochs=1", "training.num_reconstruct_samples=0")

LONGER = (*SMALL, "training.max_batches=8", "training.save_every_x_batch=3", "training.num_reconstruct_samples=0")
"""16 steps, long enough to be killed in their middle."""

QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none")


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Run an entry in this process, in an empty working directory; returns (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_MAIN_MODULE", "__main__")  # so that it looks for conf/ beside the file, as in a script

    def run(*arguments, entry=train):
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", [f"{entry.__name__}.py", *expand_resume(arguments), *QUIET])
        capfd.readouterr()
        code = 0
        try:
            entry.main()
        except SystemExit as stop:
            code = stop.code
            if isinstance(code, str):
                print(code, file=sys.stderr)  # as the interpreter would
                code = 1
        return code, capfd.readouterr().err

    return run


@pytest.fixture
def start(forked, wall_root):
    """Start ``train.py`` in a process of its own; what still runs at the end of the test is killed."""
    return lambda *arguments: forked("train.py", *arguments, env={"DATASET_DIR": str(wall_root)})


def finish(process):
    """What it said, once it has ended well."""
    said = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, said
    return said


def wait_for_lines(process, folder, count):
    """Until the log has so many lines and a state was saved."""
    deadline = time.monotonic() + 120
    log, saved = folder / "logs.json", folder / "checkpoints" / "model_latest.safetensors"
    while time.monotonic() < deadline:
        if saved.exists() and log.exists() and len(log.read_text().splitlines()) >= count:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    pytest.fail(f"{folder} never got to {count} lines")


def the_run(folder):
    """The one run folder below a model directory: <method>/<date>/<time>."""
    (found,) = [path.parent for path in folder.glob("*/*/*/hydra.yaml")]
    return found


def assert_same_results(folder, undisturbed):
    """Weights byte for byte, every tensor of the state, and the log but for its times."""
    names = sorted(path.name for path in (undisturbed / "checkpoints").glob("*.safetensors"))
    assert names == sorted(path.name for path in (folder / "checkpoints").glob("*.safetensors"))
    assert {"model_1.safetensors", "model_2.safetensors", "model_latest.safetensors"} <= set(names)
    for name in names:
        assert (folder / "checkpoints" / name).read_bytes() == (undisturbed / "checkpoints" / name).read_bytes(), name
    assert without_times(folder / "logs.json") == without_times(undisturbed / "logs.json")
    states = [torch.load(each / "checkpoints" / FILENAME, weights_only=True) for each in (folder, undisturbed)]
    for state in states:
        del state["log"]  # its length depends on how many digits a duration has
    found, expected = (dict(leaves(state)) for state in states)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        same = torch.equal(found[path], value) if isinstance(value, torch.Tensor) else found[path] == value
        assert same, path
    replay = [{path.name: path.read_bytes() for path in each.glob("replay/*")} for each in (folder, undisturbed)]
    assert replay[0] == replay[1]
    assert not list(folder.rglob(".*world-models*"))


def leaves(value, path=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}/{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}/{number}")
    else:
        yield path, value


def arguments_of(method, folder, base):
    return (*LONGER, *BRIEF_PLANS[method], "from_scratch=true", f"ckpt_path={base}", f"hydra.run.dir={folder}")


@pytest.mark.slow
def test_a_second_training_in_a_folder_ends_at_once_and_a_killed_one_is_out_of_the_way(start, tmp_path):
    folder, base = tmp_path / "run", tmp_path / "no_base"
    first = start(*arguments_of("offline", folder, base))
    wait_for_lines(first, folder, 3)
    first.send_signal(signal.SIGSTOP)  # it must not end meanwhile, however slow the second one is
    second = start(*arguments_of("offline", folder, base), "training.seed=5")
    said = "".join(second.communicate(timeout=120))
    assert second.returncode == 1
    assert said.startswith(f"error: run folder {folder} is in use by process {first.pid} on ") and said.count("\n") == 1
    assert "seed: 5" not in (folder / "run.json").read_text() and "seed=5" not in (folder / "run.json").read_text()
    first.kill()
    first.wait()
    assert "resuming" in finish(start(f"resume={folder}"))
    assert not list(folder.glob(".*world-models*"))


# One base for all, so that the checkpoints of the runs that are compared name the same parent.
@pytest.mark.parametrize("method", list(BRIEF_PLANS))
def test_killed_at_any_moment_it_resumes_to_the_same_end(start, call, tmp_path, method):
    whole, killed, base = tmp_path / "whole", tmp_path / "killed", tmp_path / "no_base"
    victim = start(*arguments_of(method, killed, base))
    wait_for_lines(victim, killed, random.SystemRandom().randint(3, 11))
    time.sleep(random.SystemRandom().uniform(0, 0.03))
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    stopped_at = json.loads((killed / "logs.json").read_text().splitlines()[-1])["step"]
    read_checkpoint(killed)  # whatever it was doing
    resumed = start(f"resume={killed}")
    code, errors = call(*arguments_of(method, whole, base))
    assert code == 0, errors
    assert f"resuming {killed} at epoch" in finish(resumed)
    assert 3 <= stopped_at < 16
    assert_same_results(killed, whole)


@pytest.mark.slow
def test_killed_again_and_again_it_still_comes_to_the_same_end(start, tmp_path):
    method = "online_adversarial"  # of which a run keeps the most
    whole, killed, base = tmp_path / "whole", tmp_path / "killed", tmp_path / "no_base"
    finish(start(*arguments_of(method, whole, base), "training.epochs=5"))
    command, chance = (*arguments_of(method, killed, base), "training.epochs=5"), random.SystemRandom()
    log, saved, kills = killed / "logs.json", killed / "checkpoints" / "model_latest.safetensors", 0
    for attempt in range(6):
        before = log.stat().st_mtime_ns if log.exists() else 0
        process = start(*command)
        if attempt % 3 == 2:  # while it starts, too
            time.sleep(chance.uniform(0.05, 0.6))
        else:
            while process.poll() is None and (not log.exists() or log.stat().st_mtime_ns == before):
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.3))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
        if saved.exists():
            read_checkpoint(killed)
            command = (f"resume={killed}",)
    assert kills >= 3
    finish(start(*command))
    assert_same_results(killed, whole)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_saves_says_how_to_continue_and_gives_the_shells_exit_code(start, tmp_path, number, code):
    folder = tmp_path / "run"
    long = ("training.max_batches=null", "training.epochs=200", "training.save_every_x_batch=3")
    process = start(*BRIEF_STATE, *long, f"ckpt_path={tmp_path}", f"hydra.run.dir={folder}")
    wait_for_lines(process, folder, 5)
    process.send_signal(number)
    said = "".join(process.communicate(timeout=60))
    assert process.returncode == code
    assert f"{number.name}: stopping as soon as everything is saved" in said
    step = json.loads((folder / "logs.json").read_text().splitlines()[-1])["step"]
    assert f"saved after step {step}; continue with: python train.py resume={folder}" in said
    assert "Traceback" not in said
    state = torch.load(folder / "checkpoints" / FILENAME, weights_only=True)
    assert state["step"] == step == header(folder / "checkpoints" / "model_latest.safetensors")["step"]


@pytest.fixture(scope="module")
def base(tmp_path_factory, wall_root):
    """A model directory as a user has one."""
    from tests.training.tiny import run

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DATASET_DIR", str(wall_root))
        return run(tmp_path_factory.mktemp("base") / "wall_small", "training.epochs=1").folder


@pytest.mark.parametrize("method", ["online", "adversarial", "offline", "initnet"])
def test_the_documented_commands(call, tmp_path, base, method):
    folder = tmp_path / "outputs" / "wall_single"
    shutil.copytree(base, folder)
    extra = BRIEF_PLANS["online"][1:] if method == "online" else []
    given = ("--config-name", "train.yaml", "env=wall", "ckpt_path=./outputs/wall_single/", "num_hist=1")
    code, errors = call(*given, f"method={method}", *BRIEF, *extra)
    assert code == 0, errors
    made = the_run(folder)
    assert re.fullmatch(rf"{method}/\d{{4}}-\d\d-\d\d/\d\d-\d\d-\d\d", str(made.relative_to(folder)))
    assert {path.name for path in (made / "checkpoints").iterdir()} == {
        "model_1.safetensors", "model_latest.safetensors", FILENAME
    }  # fmt: skip
    stored = read_model_config(made / "hydra.yaml")
    assert (stored["num_hist"], stored["img_size"], stored["encoder"]["_target_"]) == (
        1, 65, "models.networks.small_encoder.SmallEncoder"
    )  # fmt: skip
    assert (stored["action_emb_dim"], stored["training"]["batch_size"]) == (10, 4)
    assert read_checkpoint(made).about["parent"].endswith("wall_single/checkpoints/model_latest.safetensors")
    assert read_checkpoint(folder).about["step"] == 5  # the base is as it was
    if method != "offline":
        result = ("planner=gd", "planner.opt_steps=2", "n_evals=2", "n_plot_samples=0", "device=cpu", "num_threads=1")
        relative = f"ckpt_path=./{made.relative_to(tmp_path)}/"
        code, errors = call("--config-name", "plan_wall.yaml", relative, *result, entry=plan)
        assert code == 0, errors
        (log,) = tmp_path.glob("plan_outputs/wall/*/logs.json")
        assert "final_eval/success_rate" in log.read_text()


def test_training_from_scratch_where_there_is_no_checkpoint(call, tmp_path):
    code, errors = call(*BRIEF_STATE, "ckpt_path=outputs/new")
    assert code == 0, errors
    made = the_run(tmp_path / "outputs" / "new")
    assert made.parent.parent.name == "offline"
    assert not (tmp_path / "outputs" / "new" / "checkpoints").exists()


@pytest.mark.slow
def test_a_sweep_gives_every_member_a_folder_named_after_its_settings(call, tmp_path):
    methods = ("from_scratch=true", "method=offline,adversarial")
    argv = name_sweep(["-m", *BRIEF_STATE, "ckpt_path=base", *methods], "outputs/sweeps")
    code, errors = call(*argv)
    assert code == 0, errors
    made = sorted(path.parent for path in (tmp_path / "outputs" / "sweeps").glob("method-*/*/hydra.yaml"))
    assert [path.name for path in made] == ["method-adversarial", "method-offline"]
    before = (made[0] / "logs.json").read_bytes()
    code, errors = call(f"resume={made[0]}")
    assert code == 0, errors
    assert (made[0] / "logs.json").read_bytes() == before


@pytest.mark.parametrize("name", ["run of today", "a=1,b=[2]", "it's", "brack{et}s"])
def test_resume_takes_any_folder_name(call, tmp_path, name):
    folder = tmp_path / name
    call(*BRIEF_STATE, "ckpt_path=base", "hydra.run.dir=made")
    (tmp_path / "made").rename(folder)
    before = (folder / "logs.json").read_bytes()
    code, errors = call(f"resume={folder}")
    assert code == 0, errors
    assert (folder / "logs.json").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {name}


def test_resume_with_changed_settings_names_them_and_free_ones_are_taken(call, tmp_path):
    brief = (*BRIEF_STATE, "ckpt_path=base")
    call(*brief, "hydra.run.dir=made")
    code, errors = call("resume=made", "training.batch_size=5")
    assert (code, errors.count("\n")) == (1, 1)
    assert "training.batch_size: 4 -> 5" in errors
    code, errors = call("resume=made", "num_threads=2")
    assert code == 0, errors


def test_resume_never_names_a_class_that_the_folder_asks_for(call, tmp_path):
    call(*BRIEF_STATE, "ckpt_path=base", "hydra.run.dir=made")
    recorded = tmp_path / "made" / ".hydra" / "overrides.yaml"
    recorded.write_text(recorded.read_text() + "- logger._target_=os.system\n")
    with pytest.raises(SystemExit, match=r"'logger\._target_=os\.system' cannot be taken from a folder"):
        expand_resume(["resume=made"])


def one_line(result, *expected):
    code, errors = result
    lines = errors.strip().splitlines()
    assert code == 1
    assert len(lines) == 1, errors
    assert lines[0].startswith("error: ")
    for text in expected:
        assert text in lines[0], errors


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["training.batch_size=many"], "training.batch_size=many must be a whole number, at least 1"),
        (["training.batch_size=1.5"], "training.batch_size=1.5 must be a whole number"),
        (["training.batch_size=true"], "training.batch_size=true must be a whole number"),
        (["training.predictor_lr=fast"], "training.predictor_lr=fast must be a number"),
        (["training.max_batches=few"], "training.max_batches=few must be a whole number"),
        (["model.train_decoder=maybe"], "model.train_decoder=maybe must be true or false"),
        (["num_threads=all"], "num_threads=all must be a whole number"),
        (
            ["env.dataset.n_rollout=some"],
            "env.dataset.n_rollout=some must be a whole number, at least 1, ",
        ),
        (["debug=1"], "debug=1 must be true or false"),
        (["training.epochs=null"], "training.epochs=null must be a whole number, at least 1"),
        (["ckpt_path=null"], "ckpt_path=null must be a text"),
        (["num_action_repeat=0"], "num_action_repeat=0 must be a whole number, at least 1"),
        (["predictor.depth=0"], "predictor.depth=0 must be a whole number, at least 1"),
        (["env.num_workers=100000"], "env.num_workers=100000 must be a whole number, at least 0, at most "),
        (["device=cpu:99"], "device=cpu:99 cannot be used here"),
        (["~predictor"], "predictor=null: there must be one; choose among adaln, mlp, residual, vit"),
        (["method=online", "method.frame_stride=x"], "method.frame_stride=x must be a whole number"),
        (["method=adversarial", "visual_eps_factor=big"], "visual_eps_factor=big must be a number"),
        (["method=adversarial", "radii_method=never"], "radii_method must be one of fixed, adaptive, got 'never'"),
        (["+training.batchsize=4"], "training.batchsize: there is no such setting; did you mean training.batch_size"),
        (["+method.visual_eps_factor=0.1"], "method.visual_eps_factor: there is no such setting"),
        (["~training.seed"], "training.seed=null must be a whole number"),
        (["device=abacus"], "device=abacus cannot be used here"),
        (["precision=half"], "precision must be one of auto, float32, bf16, got 'half'"),
        (["speed.compile=maybe"], "speed.compile=maybe must be true or false or auto"),
        (["speed.compile=true", "num_threads=0"], "num_threads=0 must be a whole number, at least 1"),
        (["N=1", "method=online", "from_scratch=true"], "set N to at least 5"),
        (["env.dataset.n_rollout=500"], "1..12 (the trajectories in"),
        (["img_size=224"], "the data set's frames are 65 x 65, the model's img_size is 224"),
        (["model.train_encoder=true"], "model.train_encoder=true, but the model's encoder has nothing to train"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(call, tmp_path, overrides, expected):
    one_line(call(*SMALL[:1], *SMALL[4:], "ckpt_path=base", *overrides), expected)
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["trainin.seed=1"], ["Key 'trainin' is not in struct"]),
        (["training.sed=1"], ["Could not override 'training.sed'", "Key 'sed' is not in struct"]),
        (["method=onlin"], ["Could not find 'method/onlin'", "Available options in 'method'", "adversarial"]),
        (["metod=online"], ["Could not override 'metod'"]),
        (["visual_eps_factor=0.1", "method=offline"], ["Could not override 'visual_eps_factor'"]),
        (["replay_buffer_frequency=3", "method=adversarial"], ["Could not override 'replay_buffer_frequency'"]),
        (["experiment=wall_tiny"], ["Could not find 'experiment/wall_tiny'", "wall_small"]),
    ],
    ids=lambda value: " ".join(value) if "=" in value[0] else "",
)
def test_a_misspelt_name_gets_hydras_own_list(call, tmp_path, overrides, expected):
    code, errors = call("ckpt_path=base", *overrides)
    assert code == 1
    assert "Traceback" not in errors
    for text in expected:
        assert text in errors
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


class Spoiled:
    """A data set of its own that can be spoilt and mended."""

    def __init__(self, folder, wall_root):
        self.root, self.wall = folder, folder / "wall_single"
        self.good = wall_root / "wall_single"
        shutil.copytree(self.good, self.wall)

    def mend(self):
        shutil.rmtree(self.wall)
        shutil.copytree(self.good, self.wall)


@pytest.fixture
def spoiled(tmp_path, wall_root, monkeypatch):
    data = Spoiled(tmp_path / "data", wall_root)
    monkeypatch.setenv("DATASET_DIR", str(data.root))
    return data


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def reshape(path):
    torch.save(torch.load(path)[:, :-1], path)


@pytest.mark.parametrize(
    ("spoil", "name", "expected"),
    [
        (Path.unlink, "actions.pth", ["expected a tensor file", "found no file"]),
        (truncate, "states.pth", ["is broken", "delete it and fetch it again"]),
        (reshape, "actions.pth", ["expected shape (12, 40, 2) as states.pth says", "found (12, 39, 2)"]),
        (Path.unlink, "obses/episode_007.pth", ["expected an episode file", "found no file (missing: 1 of 12"]),
        (truncate, "obses/episode_007.pth", ["expected about", "bytes"]),
        (reshape, "obses/episode_000.pth", ["expected shape (41, 3, S, S)", "found (41, 2, 65, 65)"]),
    ],
)
def test_bad_data_is_one_line_and_blocks_no_later_run(call, tmp_path, spoiled, spoil, name, expected):
    spoil(spoiled.wall / name)
    command = (
        *STATE,
        "ckpt_path=base",
        "training.epochs=1",
        "training.num_reconstruct_samples=0",
        "hydra.run.dir=made",
    )
    one_line(call(*command), str(spoiled.wall / name), *expected)
    assert not (tmp_path / "made" / "checkpoints").exists()
    spoiled.mend()
    code, errors = call(*command)
    assert code == 0, errors
    assert (tmp_path / "made" / "checkpoints" / "model_latest.safetensors").exists()


def test_no_data_at_all_is_one_line(call, monkeypatch, tmp_path):
    monkeypatch.delenv("DATASET_DIR")
    one_line(call(*STATE, "ckpt_path=base"), "environment variable DATASET_DIR", "found nothing", "export DATASET_DIR=")
    monkeypatch.setenv("DATASET_DIR", str(tmp_path / "nowhere"))
    one_line(call(*STATE, "ckpt_path=base"), f"DATASET_DIR={tmp_path / 'nowhere'}", "no such folder")
    monkeypatch.setenv("DATASET_DIR", str(tmp_path))
    one_line(call(*STATE, "ckpt_path=base"), str(tmp_path / "wall_single"), "no such folder", "datasets.collect")


def test_a_broken_base_is_one_line(call, tmp_path, base):
    shutil.copytree(base, tmp_path / "base")
    truncate(tmp_path / "base" / "checkpoints" / "model_latest.safetensors")
    one_line(call("ckpt_path=base", *BRIEF), "model_latest.safetensors is damaged: its checksum does not fit")
    shutil.rmtree(tmp_path / "base")
    shutil.copytree(base, tmp_path / "base")
    (tmp_path / "base" / "hydra.yaml").unlink()
    one_line(call("ckpt_path=base", *BRIEF), "hydra.yaml")


def test_an_override_against_the_base_names_both_values(call, tmp_path, base):
    expected = "num_hist=3 was asked for, the checkpoint has num_hist=1"
    one_line(call(f"ckpt_path={base}", "num_hist=3", *BRIEF), expected, str(base))


def test_a_folder_that_is_no_run_cannot_be_resumed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="error: resume=nowhere: there is no run to resume"):
        expand_resume(["resume=nowhere"])
    assert expand_resume(["env=wall", "N=3"]) == ["env=wall", "N=3"]
