"""A run that was interrupted, wherever, ends as if it had not been."""

import gc
import multiprocessing
import os
import re
import signal
import threading
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import utils.tensor_files
from datasets.readers import ReaderError
from models.checkpoints.native import read_checkpoint
from tests.training.resuming import KilledError, assert_same_run, final_files, interrupt
from tests.training.tiny import BRIEF_PLANS, STATE, build, header, run, without_times
from training.state import FILENAME, random_state, read_state, write_state
from utils.files import temporary_path
from utils.interrupts import StopRequested
from utils.retry import DiskError

SAVING = ("training.save_every_x_batch=2", "training.max_batches=3", "training.num_reconstruct_samples=0")


def images(*overrides):
    """Few steps on images, with dropout, which draws from the global generator."""
    return ("predictor.dropout=0.1", *SAVING, *overrides)


def states(*overrides):
    return (*STATE, *SAVING, *overrides)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, wall_root):
    """One uninterrupted run per method, on images."""
    folder, threads = tmp_path_factory.mktemp("undisturbed"), torch.get_num_threads()
    os.environ["DATASET_DIR"] = str(wall_root)
    for method, options in BRIEF_PLANS.items():
        run(folder / method, *images(*options), f"ckpt_path={folder / 'no_base'}")
    torch.set_num_threads(threads)
    return folder


@pytest.mark.parametrize("method", list(BRIEF_PLANS))
def test_interrupted_at_every_step_it_ends_bit_for_bit_the_same(undisturbed, tmp_path, method):
    overrides = (*images(*BRIEF_PLANS[method]), f"ckpt_path={undisturbed / 'no_base'}")
    for after in range(6):
        assert interrupt(build(tmp_path / "run", *overrides), after)
    run(tmp_path / "run", *overrides)
    assert_same_run(tmp_path / "run", undisturbed / method)


@pytest.mark.parametrize("method", list(BRIEF_PLANS))
def test_each_single_interruption_is_without_effect(tmp_path, method):
    overrides = (*states(*BRIEF_PLANS[method]), f"ckpt_path={tmp_path / 'no_base'}")
    run(tmp_path / "whole", *overrides)
    for after in range(6):
        folder = tmp_path / f"after_{after}"
        assert interrupt(build(folder, *overrides), after)
        torch.manual_seed(after)  # another process has another state
        run(folder, *overrides)
        assert_same_run(folder, tmp_path / "whole")


@pytest.mark.parametrize(
    ("target", "at"),
    [
        ("model_1.safetensors", 3),
        ("training_state.pt", 3),
        ("model_latest.safetensors", 3),
        ("training_state.pt", 6),  # the last one: nothing comes after it to put the weights right
    ],
)
@pytest.mark.parametrize("half", [True, False])
def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path, target, at, half, monkeypatch):
    """``half``: while the bytes go out; else: between this file and the next one."""
    overrides = (*states("method=online", *BRIEF_PLANS["online"][1:]), f"ckpt_path={tmp_path / 'no_base'}")
    run(tmp_path / "whole", *overrides)
    folder = tmp_path / "run"
    trainer = build(folder, *overrides)
    replace = Path.replace

    def replaced(self, to):
        if Path(to).name != target or trainer.step < at:
            return replace(self, to)
        if half:
            self.write_bytes(self.read_bytes()[:50])
        else:
            replace(self, to)
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replaced)
        with pytest.raises(KilledError):
            trainer.fit()
    read_checkpoint(folder)  # whatever was going on, it loads
    run(folder, *overrides)
    assert_same_run(folder, tmp_path / "whole")


def test_the_latest_weights_load_at_every_moment(tmp_path):
    """A reader beside a run that saves after every step."""
    trainer = build(tmp_path / "run", *STATE, "training.save_every_x_batch=1", "training.num_reconstruct_samples=0")
    steps, problems, done = [], [], threading.Event()

    def read():
        while not done.wait(0.001):
            try:
                steps.append(read_checkpoint(tmp_path / "run").about["step"])
            except Exception as error:
                if "no checkpoint" not in str(error) and "hydra.yaml" not in str(error):
                    problems.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        trainer.fit()
    finally:
        done.set()
        reader.join()
    assert not problems
    assert steps == sorted(steps) and len(set(steps)) > 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_step_finish_saves_and_stops(tmp_path, number):
    overrides = (*states("method=online", *BRIEF_PLANS["online"][1:]), f"ckpt_path={tmp_path / 'no_base'}")
    run(tmp_path / "whole", *overrides)
    before = signal.getsignal(number)
    for at in (1, 3, 5):  # within an epoch, at the end of one, in the next
        folder = tmp_path / f"at_{at}"
        trainer = build(folder, *overrides)

        def signalled(trainer, batch, at=at):
            if trainer.step + 1 == at:
                os.kill(os.getpid(), number)

        trainer.on_step.append(signalled)
        with pytest.raises(StopRequested) as caught:
            trainer.fit()
        assert caught.value.code == 128 + number
        assert header(folder / "checkpoints" / "model_latest.safetensors")["step"] == trainer.step == at
        assert signal.getsignal(number) is before
        run(folder, *overrides)
        assert_same_run(folder, tmp_path / "whole")


def test_a_finished_run_stays_as_it_is(tmp_path):
    overrides = (*states(), f"ckpt_path={tmp_path / 'no_base'}")
    run(tmp_path / "run", *overrides)
    before = final_files(tmp_path / "run")
    again = build(tmp_path / "run", *overrides)
    again.on_step.append(lambda trainer, batch: pytest.fail("it trained on"))
    again.fit()
    assert final_files(tmp_path / "run") == before


def test_lines_of_an_attempt_that_saved_nothing_are_forgotten(tmp_path):
    overrides = (*states("training.save_every_x_batch=100"), f"ckpt_path={tmp_path / 'no_base'}")
    run(tmp_path / "whole", *overrides)
    assert interrupt(build(tmp_path / "run", *overrides), 2)
    assert len(without_times(tmp_path / "run" / "logs.json")) == 2
    run(tmp_path / "run", *overrides)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path):
    assert interrupt(build(tmp_path / "run", *states(*BRIEF_PLANS["online"])), 3)
    for name in ("checkpoints/model_latest.safetensors", "replay/00000001.safetensors"):
        temporary_path(tmp_path / "run" / name).write_bytes(b"half")
    others = [tmp_path / "run" / name for name in (".notes.tmp", ".tmpAb12Cd", "replay/mine.safetensors")]
    for path in others:
        path.write_bytes(b"somebody's")
    run(tmp_path / "run", *states(*BRIEF_PLANS["online"]))
    assert not list((tmp_path / "run").rglob(".*world-models*"))
    assert all(path.read_bytes() == b"somebody's" for path in others)


def test_a_run_in_the_folder_of_its_own_checkpoint_goes_on_from_scratch(tmp_path):
    """With run_dir = ckpt_path the weights that were saved are no base to finetune."""
    overrides = (*images(), "training.predictor_lr=null")
    whole, folder = tmp_path / "whole", tmp_path / "run"
    run(whole, *overrides, f"ckpt_path={whole}")
    assert interrupt(build(folder, *overrides, f"ckpt_path={folder}"), 4)
    trainer = build(folder, *overrides, f"ckpt_path={folder}")
    assert trainer.settings.train_decoder
    assert trainer.train_step.optimizers._peaks["predictor"] == 5e-4
    assert trainer.files.about["parent"] is None
    trainer.fit()
    assert_same_run(folder, whole)
    (folder / "checkpoints" / FILENAME).unlink()
    before = (folder / "checkpoints" / "model_latest.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"run_dir and ckpt_path are both .*would overwrite what it starts from"):
        build(folder, *overrides, f"ckpt_path={folder}")
    assert (folder / "checkpoints" / "model_latest.safetensors").read_bytes() == before


def test_other_settings_are_refused_and_named(tmp_path):
    overrides = (*states(), f"ckpt_path={tmp_path / 'no_base'}")
    assert interrupt(build(tmp_path / "run", *overrides), 4)
    for changes, named in (
        (["training.batch_size=8"], ["training.batch_size: 4 -> 8"]),
        (["N=4", "training.seed=3"], ["N: 5 -> 4", "training.seed: 0 -> 3"]),
        (
            ["method=adversarial"],
            ["method._target_: training.methods.offline.Offline -> training.methods.adversarial.Adversarial"],
        ),
        (["predictor.width=32"], ["predictor.width: 256 -> 32"]),
        (["env.dataset.split_ratio=0.5"], ["env.dataset.split_ratio: 0.7 -> 0.5"]),
    ):
        with pytest.raises(ValueError, match=r"holds a run with other settings.*start a new run") as caught:
            build(tmp_path / "run", *overrides, *changes)
        assert all(text in str(caught.value) for text in named)
    build(tmp_path / "run", *overrides, "num_threads=2", "device=auto", "memory_budget_gb=1", "env.num_workers=1")


def test_free_settings_of_a_method_are_free_too(tmp_path):
    overrides = (*states(*BRIEF_PLANS["online"]), f"ckpt_path={tmp_path / 'no_base'}")
    assert interrupt(build(tmp_path / "run", *overrides), 4)
    build(tmp_path / "run", *overrides, "memory_budget_gb=1")


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive at all", b"\x80\x02}q\x00.", None],
    ids=["empty", "text", "another pickle", "truncated"],
)
def test_a_broken_state_is_named_and_what_to_do(tmp_path, content):
    overrides = states()
    assert interrupt(build(tmp_path / "run", *overrides), 4)
    path = tmp_path / "run" / "checkpoints" / FILENAME
    path.write_bytes(path.read_bytes()[:-2000] if content is None else content)
    expected = (
        rf"cannot resume: {re.escape(str(path))} is broken \(.*\); start a new run .*ckpt_path={tmp_path / 'run'}"
    )
    with pytest.raises(ValueError, match=expected) as caught:
        run(tmp_path / "run", *overrides)
    assert "\n" not in str(caught.value)
    build(tmp_path / "new", *overrides, f"ckpt_path={tmp_path / 'run'}")  # as it says


def test_a_state_of_another_shape_is_broken_too(tmp_path):
    assert interrupt(build(tmp_path / "run", *states()), 4)
    path = tmp_path / "run" / "checkpoints" / FILENAME
    complete = torch.load(path, weights_only=True)
    lacking = {key: value for key, value in complete.items() if key != "optimizers"}
    untrained = complete | {"optimizers": {}}
    for value in ([1, 2], {"rng": 3}, lacking, untrained, complete | {"model": {}}):
        torch.save(value, path)
        with pytest.raises(ValueError, match="cannot resume"):
            run(tmp_path / "run", *states())


def test_a_state_that_would_run_code_does_not(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    path = tmp_path / "checkpoints" / FILENAME
    path.parent.mkdir()
    torch.save({"rng": Evil()}, path)
    with pytest.raises(ValueError, match="cannot resume"):
        read_state(tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_a_state_brings_the_generator_back(tmp_path):
    torch.manual_seed(5)
    write_state(tmp_path, {"step": 3, "nested": {"tensor": torch.arange(3)}} | random_state())
    expected = torch.randn(4)
    torch.manual_seed(6)
    state = read_state(tmp_path)
    assert state["step"] == 3 and torch.equal(state["nested"]["tensor"], torch.arange(3))
    assert torch.equal(torch.randn(4), expected)
    assert read_state(tmp_path / "elsewhere") is None


def test_a_missing_replay_entry_is_named(tmp_path):
    overrides = states(*BRIEF_PLANS["online"])
    assert interrupt(build(tmp_path / "run", *overrides), 4)
    (tmp_path / "run" / "replay" / "00000000.safetensors").unlink()
    with pytest.raises(ValueError, match=r"the replay entry .*00000000\.safetensors is missing or broken"):
        run(tmp_path / "run", *overrides)


def test_an_error_while_saving_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    trainer = build(tmp_path / "run", *states("training.save_every_x_batch=1"))
    original, calls = utils.tensor_files.save_file, []

    def full(tensors, path, **options):
        original(tensors, path, **options)
        calls.append(path)
        if len(calls) == 3:
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(utils.tensor_files, "save_file", full)
    trainer.files.retry.minutes = 0
    with pytest.raises(
        DiskError, match=r"^model_\w+\.safetensors could not be written: .*No space left on device .*resume="
    ):
        trainer.fit()
    assert read_checkpoint(tmp_path / "run").about["step"] == 2
    assert not list((tmp_path / "run").rglob(".*world-models*"))


def test_a_second_signal_stops_at_once_and_the_last_save_stands(tmp_path):
    overrides = (*states("training.save_every_x_batch=1"), f"ckpt_path={tmp_path / 'no_base'}")
    run(tmp_path / "whole", *overrides)
    trainer = build(tmp_path / "run", *overrides)

    def signalled_twice(trainer, batch):
        if trainer.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    trainer.on_step.append(signalled_twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert read_checkpoint(tmp_path / "run").about["step"] == 4
    run(tmp_path / "run", *overrides)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_reader_that_dies_is_one_line_and_costs_what_came_after_the_last_save(tmp_path):
    overrides = (*images("env.num_workers=1", "training.max_batches=20"), f"ckpt_path={tmp_path / 'no_base'}")
    run(tmp_path / "whole", *overrides)
    trainer = build(tmp_path / "run", *overrides)
    others = set(multiprocessing.active_children())

    def lose_the_reader(trainer, batch):
        if trainer.step == 6:
            (reader,) = set(multiprocessing.active_children()) - others
            reader.kill()

    trainer.on_step.append(lose_the_reader)
    with pytest.raises(ReaderError, match=r"DataLoader worker .* fewer env\.num_workers .*resume=") as caught:
        trainer.fit()
    trainer.close()
    assert "\n" not in str(caught.value)
    del caught
    gc.collect()  # of torch's iterator, which would report the dead reader again when any other process ends
    assert read_checkpoint(tmp_path / "run").about["step"] >= 6
    run(tmp_path / "run", *overrides)
    assert_same_run(tmp_path / "run", tmp_path / "whole")
