"""Where the jobs of a study run, and what is said of them meanwhile."""

import json
import logging
import os

import pytest
import torch

from launch import jobs, workers
from launch.job import Job
from launch.job_progress import Progress
from launch.jobs import run_jobs, workers_or_default
from launch.workers import ClusterWorkers
from tests.launch.test_jobs import append

LOCAL = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher", "timeout_min": 5}


def test_there_is_a_worker_for_each_of_several_gpus(monkeypatch):
    monkeypatch.setattr(jobs, "available_cores", lambda: 16)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert workers_or_default(None) == 3 and workers_or_default(7) == 7
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    assert workers_or_default(None) == 8


def test_every_worker_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(workers, "_GPUS", [])
    monkeypatch.setattr(workers, "end_with_parent", lambda *_: None)
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    seen = []
    for _ in range(2):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        workers._begin(None, os.getpid())
        seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert seen == ["0", "1"]
    for gpu in workers._GPUS:
        gpu.__exit__(None, None, None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")


@pytest.mark.slow
def test_a_clusters_jobs_do_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.2)
    own = [
        Job("two", append, {"path": str(tmp_path / "seen"), "text": "b"}, ["one"]),
        Job("one", append, {"path": str(tmp_path / "seen"), "text": "a"}),
    ]
    assert run_jobs(own, tmp_path / "stages", 1, cluster=LOCAL) == {"one": "A", "two": "B"}
    assert (tmp_path / "seen").read_text() == "ab"
    assert "working on a" in (tmp_path / "stages" / "one.log").read_text()


def test_a_launcher_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a study's stages run here, or with a submitit launcher"):
        ClusterWorkers({"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}, tmp_path)


def test_the_time_that_is_left_is_that_of_jobs_alike(tmp_path, caplog):
    own = [Job(name, append, {}, label=name[:1]) for name in ("a1", "a2", "b1")]
    kept = {"made": {"revision": "x", "begin": 0.0, "end": 90.0}}
    (tmp_path / "a1.json").write_text(json.dumps(kept))
    with caplog.at_level(logging.INFO), Progress(own, {"a1": None}, tmp_path, 2) as progress:
        progress.show(own[1:2])
        progress.finished(own[1], 70.0)
    first, second, last = (record.message for record in caplog.records)
    assert first == "1/3 stages, about 1:30 min left; a2 (1:30 min left)"
    assert (second, last) == ("2/3 stages, a2 took 1:10 min", "2/3 stages")
