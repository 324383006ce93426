"""Loggers that show a run elsewhere: names, and every line once, however often the run is killed."""

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from utils.loggers import read_json_lines
from utils.pictures import write_mp4, write_png
from utils.tensorboard_logger import TensorBoardLogger
from utils.tracked_logger import TrackedLogger, shown
from utils.wandb_files import history, next_step, read_records
from utils.wandb_logger import WandbLogger, labels

CONFIG = {
    "env": {"name": "wall"},
    "method": {"_target_": "training.methods.online.Online"},
    "training": {"seed": 3},
}


def step_line(step, epoch=0):
    return {"step": step, "epoch": epoch, "loss": 1.0 / step}


def val_line(step, epoch=1):
    return {"step": step, "epoch": epoch, "val_loss": 2.0 / step, "data_wait": 0.5}


RUN = [*map(step_line, (1, 2, 3)), val_line(3), *(step_line(n, 1) for n in (4, 5, 6)), val_line(6, 2)]
PLAN = [{"iteration": n, "success_rate": n / 4, "cost_trace": [[0, 1.0]]} for n in (1, 2)]
PLAN.append({"final_eval/success_rate": 0.5, "final_eval/iterations": 2, "final_eval/solved_at": [1, None]})


def pictures(folder):
    """What a training and an evaluation leave beside their logs."""
    for name in ("open_loop/epoch_1.png", "open_loop/epoch_2.png", "iteration_1.png", "iteration_2.png"):
        write_png(folder / name, np.full((8, 12, 3), 50, np.uint8))
    for index in range(2):
        write_mp4(
            folder / f"output_final_{index}_success.mp4", [np.full((16, 16, 3), 90 * n, np.uint8) for n in (1, 2)]
        )


def test_names(tmp_path):
    pictures(tmp_path)
    line = shown({**step_line(2, 1), "loss": float("nan"), "note": "text"}, tmp_path)
    assert (line.step_name, line.step, line.numbers, line.media) == ("train/step", 2, {"train/epoch": 1}, {})
    line = shown(val_line(6, 2), tmp_path)
    assert line.numbers == {"train/epoch": 2, "val/loss": 2.0 / 6, "val/data_wait": 0.5}
    assert line.media == {"val/open_loop": [tmp_path / "open_loop" / "epoch_2.png"]}
    line = shown(PLAN[1], tmp_path)
    assert (line.step_name, line.step, line.numbers) == ("plan/iteration", 2, {"plan/success_rate": 0.5})
    assert line.media == {"plan/episodes": [tmp_path / "iteration_2.png"]}
    line = shown(PLAN[2], tmp_path)
    assert (line.step_name, line.step) == ("plan/iteration", 2)
    assert line.numbers == {"plan/final/success_rate": 0.5, "plan/final/iterations": 2}
    assert [path.name[-13:] for path in line.media["plan/final/videos"]] == ["0_success.mp4", "1_success.mp4"]


def test_labels(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = labels(CONFIG, tmp_path / "outputs" / "wall" / "online")
    assert (found["name"], found["job_type"]) == ("outputs/wall/online", "train")
    assert "wall" in found["tags"]
    assert "wall" in found["group"]
    assert labels({"planner": {}}, Path("/a/b/c/d"))["name"] == "b/c/d"


class Kept(TrackedLogger):
    """Shows lines in a list, of which a kill loses the last ``lost``."""

    tracker = "the list"
    seen: list

    def open(self, lines):
        return len(self.seen)

    def show(self, number, line):
        assert number == len(self.seen)
        self.seen.append(line.step)

    def finish(self):
        self.seen.append("end")


@pytest.mark.parametrize("lost", range(7))
@pytest.mark.parametrize("saved", range(7))
def test_every_line_is_shown_once_wherever_a_kill_came(tmp_path, saved, lost):
    seen, position = [], 0
    for attempt in range(2):
        logger = Kept(tmp_path)
        logger.seen = seen
        logger.rewind(position)
        done = len(read_json_lines(logger.path)) if logger.path.exists() else 0
        for number in range(done, 6 if attempt == 0 else 9):
            logger.log(step_line(number + 1))
            if number + 1 == saved:
                position = logger.position()
        if attempt == 0:
            del seen[len(seen) - min(lost, len(seen)) :]
    logger.close()
    assert seen == [*range(1, 10), "end"]


def test_a_tracker_that_fails_is_named_once_and_the_log_goes_on(tmp_path, caplog):
    class Broken(Kept):
        def show(self, number, line):
            raise ConnectionError("no network\nand more")

    logger = Broken(tmp_path)
    logger.seen = []
    for step in (1, 2, 3):
        logger.log(step_line(step))
    logger.position()
    logger.close()
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "the list does not work (ConnectionError: no network)" in record.message
    assert [line["step"] for line in read_json_lines(logger.path)] == [1, 2, 3]
    assert logger.seen == []


def accumulated(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    events.Reload()
    scalars = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    images = {tag: [(e.step, e.width) for e in events.Images(tag)] for tag in events.Tags()["images"]}
    return scalars, images, events


@pytest.mark.parametrize("lines", [RUN, PLAN], ids=["training", "evaluation"])
def test_tensorboard_shows_each_step_once_after_a_kill_at_any_moment(tmp_path, lines):
    for saved in range(len(lines) + 1):
        folder, position = tmp_path / str(saved), 0
        pictures(folder)
        for attempt in range(2):
            logger = TensorBoardLogger(folder)
            logger.describe(CONFIG)
            logger.rewind(position)
            for number in range(saved if attempt else 0, len(lines)):
                if number == saved:
                    position = logger.position()
                logger.log(lines[number])
            position = logger.position() if saved == len(lines) else position
            logger.flush()  # and is killed
        logger.close()
        scalars, images, events = accumulated(folder)
        expected = {}
        for line in lines:
            entry = shown(line, folder)
            for name, value in entry.numbers.items():
                expected.setdefault(name, []).append((entry.step, pytest.approx(value)))
        assert scalars == expected
        if lines is RUN:
            assert images == {"val/open_loop": [(3, 12), (6, 12)]}
        else:
            videos = {f"plan/final/videos/output_final_{n}_success": [(2, 16)] for n in range(2)}
            assert images == {"plan/episodes": [(1, 12), (2, 12)], **videos}
        [text] = events.Tensors("config/text_summary")
        assert '"seed": 3' in text.tensor_proto.string_val[0].decode()


def test_a_video_moves_in_tensorboard(tmp_path):
    pictures(tmp_path)
    logger = TensorBoardLogger(tmp_path)
    for line in PLAN:
        logger.log(line)
    logger.close()
    [image] = accumulated(tmp_path)[2].Images("plan/final/videos/output_final_1_success")
    (tmp_path / "video.gif").write_bytes(image.encoded_image_string)
    with Image.open(tmp_path / "video.gif") as video:
        assert video.n_frames == 2


def test_an_unknown_wandb_mode_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"logger\.mode must be one of online, offline, disabled, got 'of'"):
        WandbLogger(tmp_path, mode="of")


def wandb_attempt(folder, position, lines, saved):
    """Log lines in a run that ends without a save; returns its file, and the position of a save after ``saved``."""
    before = {*folder.glob("wandb/offline-run-*/*.wandb")}
    logger = WandbLogger(folder, mode="offline")
    logger.describe(CONFIG)
    logger.rewind(position)
    for number, line in enumerate(lines):
        logger.log(line)
        if number + 1 == saved:
            position = logger.position()
    logger.close()
    [file] = {*folder.glob("wandb/offline-run-*/*.wandb")} - before
    deadline = time.monotonic() + 60
    while not any(record.WhichOneof("record_type") == "exit" for record in read_records(file)):
        assert time.monotonic() < deadline, "wandb's own process has not written its file"
        time.sleep(0.05)
    return file, position


def test_wandb_offline_continues_without_gap_or_overlap(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "one"
    pictures(folder)
    file, position = wandb_attempt(folder, 0, RUN[:6], saved=2)
    assert next_step([file.parent]) == 6
    cut = [number for number, record in enumerate(read_records(file)) if history(record)][4]
    shorten(file, cut)  # the last two lines never reached the disk
    assert next_step([file.parent]) == 4
    again, _ = wandb_attempt(folder, position, RUN[2:] + PLAN, saved=None)
    histories, runs, metrics = [], [], []
    for attempt in (file, again):
        records = list(read_records(attempt))
        histories += [line for line in map(history, records) if line is not None]
        runs += [record.run for record in records if record.WhichOneof("record_type") == "run"]
        metrics += [record.metric for record in records if record.WhichOneof("record_type") == "metric"]
    assert [line["_step"] for line in histories] == list(range(len(RUN + PLAN)))
    for found, line in zip(histories, RUN + PLAN, strict=True):
        entry = shown(line, folder)
        assert found[entry.step_name] == entry.step
        assert {name: found[name] for name in entry.numbers} == pytest.approx(entry.numbers)
        assert all(found[f"{name}/count"] == len(paths) for name, paths in entry.media.items())
    for run in runs:
        assert (run.run_id, run.display_name, run.job_type) == (runs[0].run_id, "runs/one", "train")
        assert "wall" in run.run_group
        assert {"train", "wall"} <= set(run.tags)
        assert {"training": {"seed": 3}}.items() <= {u.key: json.loads(u.value_json) for u in run.config.update}.items()
    steps = {metric.glob_name: metric.step_metric for metric in metrics}
    assert steps == {"train/*": "train/step", "val/*": "train/step", "plan/*": "plan/iteration"}


def shorten(file, keep):
    """Cut a wandb file after its first ``keep`` records, in the middle of the next."""
    low, high = 0, file.stat().st_size
    content = file.read_bytes()
    while high - low > 1:  # the shortest beginning with that many records
        middle = (low + high) // 2
        file.write_bytes(content[:middle])
        low, high = (low, middle) if len(list(read_records(file))) >= keep else (middle, high)
    file.write_bytes(content[: high + 5])
