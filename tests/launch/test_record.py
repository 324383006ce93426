import os

import pytest

from launch.record import FAILED, FINISHED, STOPPED, RunRecord, is_finished, mark_ended, read_record, why_busy

CONFIG = {"training": {"seed": 1}, "device": "cpu", "run_dir": "somewhere"}


def finished(folder, config=CONFIG):
    record = RunRecord(folder, config)
    record.end(FINISHED, result=0.25)
    return read_record(folder)


def test_a_finished_run_is_one_with_these_settings_wherever_it_ran(tmp_path):
    record = finished(tmp_path)
    assert is_finished(record, CONFIG | {"device": "cuda", "run_dir": "elsewhere"})
    assert not is_finished(record, CONFIG | {"training": {"seed": 2}})
    assert not is_finished(None, CONFIG)
    before, now = ({"method": {"memory_budget_gb": budget}} for budget in (4.0, "auto"))
    assert is_finished(finished(tmp_path / "online", before), now)


def test_settings_that_have_other_names_since_make_no_other_run(tmp_path):
    before = CONFIG | {"cpu_kernels": "auto", "training": {"seed": 1, "compile": False}}
    now = CONFIG | {"speed": {"cpu_kernels": "auto", "compile": False, "kernels": "auto"}}
    assert is_finished(finished(tmp_path, before), now)
    assert not is_finished(read_record(tmp_path), now | {"speed": {"cpu_kernels": False, "compile": False}})
    RunRecord(tmp_path, now)
    assert "changed" not in read_record(tmp_path)["attempts"][-1]


def test_a_damaged_record_names_no_process():
    assert why_busy({"attempts": [{"status": "running"}]}) is None
    assert why_busy({"attempts": [{"status": "running", "process": {"pid": 1}}]}) is None


def test_every_attempt_is_kept(tmp_path):
    RunRecord(tmp_path, CONFIG).end(STOPPED, "stopped by SIGTERM", saved=True)
    RunRecord(tmp_path, CONFIG | {"device": "cuda"}).end(FINISHED, result=1.0)
    record = read_record(tmp_path)
    assert [attempt["status"] for attempt in record["attempts"]] == [STOPPED, FINISHED]
    assert record["attempts"][1]["changed"] == ["device: cpu -> cuda"]
    assert (record["status"], record["result"], record["config"]["device"]) == (FINISHED, 1.0, "cuda")


def test_a_refused_attempt_does_not_replace_what_the_folder_holds(tmp_path):
    finished(tmp_path)
    RunRecord(tmp_path, CONFIG | {"training": {"seed": 2}}).end(FAILED, "other settings")
    record = read_record(tmp_path)
    assert (record["status"], record["config"]["training"]["seed"]) == (FINISHED, 1)
    assert record["attempts"][-1]["error"] == "other settings"


def test_a_run_that_still_goes_on_is_busy_and_one_that_was_killed_is_not(tmp_path):
    RunRecord(tmp_path, CONFIG)
    record = read_record(tmp_path)
    assert why_busy(record) == f"process {os.getpid()}"
    record["attempts"][-1]["process"]["birth"] = "1"  # the number is another process's by now
    assert why_busy(record) is None
    mark_ended(tmp_path, FAILED, "killed by SIGKILL")
    assert read_record(tmp_path)["error"] == "killed by SIGKILL"
    mark_ended(tmp_path, FAILED, "twice")
    assert read_record(tmp_path)["error"] == "killed by SIGKILL"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"status": "finished"}'])
def test_a_record_that_cannot_be_read_is_none(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    assert read_record(tmp_path) is None
