"""Disks that really fill up and mounts that really go away, under a training and an evaluation."""

import functools
import os
import subprocess
import threading
import time

import pytest

from models.checkpoints.native import read_checkpoint
from plan import plan
from planning.config import PlanConfig
from planning.evaluation import Evaluation
from tests.builders import wall_model_directory
from tests.training.resuming import assert_same_run
from tests.training.tiny import BRIEF_PLANS, STATE, build, composed, make_wall, run, without_times
from utils.retry import DiskError
from utils.schema import parsed

SHORT = (*STATE, *BRIEF_PLANS["online"], "training.num_reconstruct_samples=0", "training.save_every_x_batch=1",
         "training.max_batches=6")  # fmt: skip
SIZE = 8_000_000


@functools.cache
def why_no_mounts() -> str | None:
    """Root may lack the right, too, in a container."""
    if os.geteuid() != 0:
        return "mounting a file system needs root"
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True)
    return f"mounting is not allowed here: {tried.stderr.strip()}" if tried.returncode else None


@pytest.fixture
def mount(tmp_path):
    """Mount a file system at ``tmp_path / name``, with the arguments of mount(8); and take it away again."""
    if reason := why_no_mounts():
        pytest.skip(reason)
    points = []

    def mounted(name, *arguments):
        point = tmp_path / name
        point.mkdir(exist_ok=True)
        subprocess.run(["mount", *arguments, str(point)], check=True)
        points.append(point)
        return point

    yield mounted
    for point in points:
        subprocess.run(["umount", "-l", str(point)], check=False, capture_output=True)


@pytest.fixture
def small_disk(mount):
    return mount("disk", "-t", "tmpfs", "-o", f"size={SIZE}", "none")


def fill(disk):
    """Leave no byte free on it."""
    ballast = disk / "ballast"
    with ballast.open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


def after_step(trainer, number, act):
    """Call ``act`` once, when so many steps were made."""
    trainer.on_step.append(lambda trainer, batch: act() if trainer.step == number else None)


def later(act, seconds=0.5):
    """Do it in another thread, so much later."""
    timer = threading.Timer(seconds, act)
    timer.start()
    return timer


@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_training_waits_for_room_on_a_full_disk(tmp_path, small_disk, step):
    base = f"ckpt_path={tmp_path / 'no_base'}"
    run(tmp_path / "whole", *SHORT, base)
    trainer, waiting = build(small_disk / "run", *SHORT, base), []
    trainer.files.retry.pause = trainer.method.context.retry.pause = 0.05

    def full():
        waiting.append(later(fill(small_disk).unlink))
        waiting.append(time.monotonic())

    after_step(trainer, step, full)
    trainer.fit()
    assert time.monotonic() - waiting[1] > 0.45  # it had to wait
    assert_same_run(small_disk / "run", tmp_path / "whole")


@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_training_that_gives_up_leaves_what_was_saved_and_goes_on_later(tmp_path, small_disk, step):
    base = f"ckpt_path={tmp_path / 'no_base'}"
    run(tmp_path / "whole", *SHORT, base)
    trainer = build(small_disk / "run", *SHORT, base, "disk_patience_minutes=0")
    after_step(trainer, step, lambda: fill(small_disk))
    with pytest.raises(DiskError, match=r"could not be written: .*No space left on device .* free\)") as caught:
        trainer.fit()
    assert "\n" not in str(caught.value) and "python train.py resume=" in str(caught.value)
    assert read_checkpoint(small_disk / "run").about["step"] == step
    with pytest.raises(OSError):  # no room, and nothing is lost by trying
        run(small_disk / "run", *SHORT, base, "disk_patience_minutes=0")
    (small_disk / "ballast").unlink()
    run(small_disk / "run", *SHORT, base)
    assert_same_run(small_disk / "run", tmp_path / "whole")


def test_a_training_waits_for_a_lost_mount(tmp_path, mount, monkeypatch):
    """Data and run lie on it; while it is gone, nothing is written into the empty folder in its place."""
    make_wall(tmp_path / "server" / "data")
    share = mount("share", "--bind", str(tmp_path / "server"))
    monkeypatch.setenv("DATASET_DIR", str(share / "data"))
    base = f"ckpt_path={tmp_path / 'no_base'}"
    images = ("training.num_reconstruct_samples=0", "training.save_every_x_batch=1", base)
    run(share / "whole", *images)
    trainer, seen = build(share / "run", *images), []
    for retry in (trainer.files.retry, trainer.method.context.retry):
        retry.pause = 0.05

    def back():
        seen.extend(share.iterdir())
        mount("share", "--bind", str(tmp_path / "server"))

    def lost():
        subprocess.run(["umount", "-l", str(share)], check=True)
        later(back)

    after_step(trainer, 2, lost)
    trainer.fit()
    assert seen == []
    assert_same_run(share / "run", share / "whole")


def test_an_evaluation_waits_for_room_on_a_full_disk(tmp_path, small_disk, monkeypatch):
    model = wall_model_directory(tmp_path / "model", moves=False)
    overrides = ("n_evals=2", "n_plot_samples=1", "device=cpu", "num_threads=1", "planner.max_iter=3",
                 "planner.sub_planner.horizon=2", "planner.sub_planner.opt_steps=2")  # fmt: skip

    def settings(folder):
        config = composed(*overrides, name="plan_wall", ckpt_path=str(model), run_dir=str(folder))
        return parsed(PlanConfig, config)

    plan(settings(tmp_path / "whole"))
    save, waited = Evaluation._save, []

    def save_on_a_full_disk(self, episodes):
        if episodes.iteration == 2:
            self.retry.pause = 0.05
            later(fill(small_disk).unlink)
            waited.append(time.monotonic())
        save(self, episodes)
        if episodes.iteration == 2:
            waited.append(time.monotonic())

    monkeypatch.setattr(Evaluation, "_save", save_on_a_full_disk)
    plan(settings(small_disk / "run"))
    assert waited[1] - waited[0] > 0.45
    assert [line.get("iteration") for line in without_times(small_disk / "run" / "logs.json")] == [1, 2, 3, None]
    names = [{path.name for path in folder.iterdir()} for folder in (small_disk / "run", tmp_path / "whole")]
    assert names[0] == names[1]
