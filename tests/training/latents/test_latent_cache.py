"""Latents kept in memory or on disk: the same training, made once, never taken for others."""

import dataclasses
import json
import logging
import multiprocessing
import shutil
import threading
from collections import namedtuple

import pytest
import torch

from models.networks.resnet_encoder import ResNetEncoder
from tests.training.tiny import build, run, without_times
from training.latents import store as latent_store
from training.latents.cache import FramesToEncode
from training.latents.identity import encoder_sha256
from training.latents.store import IDENTITY, LATENTS, PROGRESS, SUMS, StoredLatents
from utils.retry import Retry

NO_PIXELS = ("model.train_decoder=false", "training.num_reconstruct_samples=0")


@pytest.fixture
def frames(tmp_path):
    """What a tiny run encodes, in pieces of a few frames."""
    training = build(tmp_path / "frames")
    data = training.train_step.frames.trajectories
    return FramesToEncode(data, range(len(data)), training.model.encoder, torch.device("cpu"))


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr("training.latents.cache.FRAMES_PER_CALL", 7)


def everything(stored, frames):
    """All latents of a source, (frames, P, D)."""
    lengths = frames.lengths.tolist()
    number = torch.cat([torch.full((length,), n) for n, length in zip(frames.numbers, lengths, strict=True)])
    step = torch.cat([torch.arange(length) for length in lengths])
    return stored.read(number[None], step[None])[0]


def expected(frames):
    return torch.cat([latents for _, latents in frames.encoded()])


@pytest.mark.parametrize(("method", "cache", "dtype", "rel"), [
    ("offline", "memory", "float32", 1e-4), ("offline", "disk", "float32", 1e-4), ("offline", "disk", "float16", 2e-3),
    ("offline", "memory", "bf16", 2e-2), ("online", "disk", "float32", 1e-4),
])  # fmt: skip
def test_kept_latents_give_the_same_losses(tmp_path, method, cache, dtype, rel):
    options = ["method=online", "method.planner.opt_steps=2"] if method == "online" else []
    logs = []
    for chosen in (["none"], [cache, f"training.latent_dtype={dtype}"]):
        training = run(tmp_path / chosen[0], *options, f"training.latent_cache={chosen[0]}", *chosen[1:])
        logs.append(without_times(training.folder / "logs.json"))
    assert len(logs[0]) == len(logs[1]) == 12
    for one, other in zip(*logs, strict=True):
        assert one == pytest.approx(other, rel=rel)
    assert len({line["loss"] for line in logs[0] if "loss" in line}) == 10


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_the_encoder_never_runs_again(tmp_path, cache):
    training = build(tmp_path / "run", f"training.latent_cache={cache}", *NO_PIXELS)
    training.model.encoder.register_forward_hook(lambda *_: pytest.fail("the encoder ran"))
    training.fit()


def test_a_second_run_reads_what_the_first_one_made(tmp_path, monkeypatch, caplog):
    base = tmp_path / "base"
    options = (f"ckpt_path={base}", "training.latent_cache=disk")
    caplog.set_level(logging.INFO)
    first = run(base / "one", *options)
    [said] = [message for message in caplog.messages if message.startswith("latent cache in")]
    assert "480 frames of 16 x 32 numbers in float32: 0.000983 GB (" in said and "GB are free)" in said  # 12 * 40
    assert sorted(path.name for path in (base / "latents").iterdir()) == [SUMS, IDENTITY, LATENTS]
    monkeypatch.setattr(FramesToEncode, "encoded", lambda *_: pytest.fail("made again"))
    second = run(base / "two", *options)
    assert without_times(first.folder / "logs.json") == without_times(second.folder / "logs.json")


@pytest.mark.parametrize("after", [1, 3])
def test_making_goes_on_where_it_was_stopped(tmp_path, frames, monkeypatch, after):
    monkeypatch.setattr(latent_store, "SECONDS_BETWEEN_NOTES", 0.0)
    encode, calls = FramesToEncode.encode, []

    def stopped(self, images):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(len(images))
        return encode(self, images)

    with monkeypatch.context() as patched:
        patched.setattr(FramesToEncode, "encode", stopped)
        with pytest.raises(KeyboardInterrupt):
            StoredLatents(frames, tmp_path / "latents", {})
    assert not (tmp_path / "latents" / LATENTS).exists()
    assert json.loads((tmp_path / "latents" / PROGRESS).read_text()) == {"frames": sum(calls)}
    calls.clear()
    counting = lambda self, images: calls.append(len(images)) or encode(self, images)  # noqa: E731
    monkeypatch.setattr(FramesToEncode, "encode", counting)
    stored = StoredLatents(frames, tmp_path / "latents", {})
    assert sum(calls) == frames.shape[0] - after * 7 + latent_store.PROBES
    assert torch.equal(everything(stored, frames), expected(frames))


def test_what_was_not_noted_is_made_again(tmp_path, frames):
    """After a power loss the end of the file may hold anything."""
    whole = StoredLatents(frames, tmp_path / "whole", {})
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    data = bytearray((tmp_path / "part" / LATENTS).read_bytes())
    row = frames.num_bytes // frames.shape[0]
    data[69 * row :] = bytes(len(data) - 69 * row)
    (tmp_path / "part" / LATENTS).unlink()
    (tmp_path / "part" / latent_store.UNFINISHED).write_bytes(data)
    (tmp_path / "part" / PROGRESS).write_text('{"frames": 69}')  # no end of a piece: of another FRAMES_PER_CALL
    assert torch.equal(everything(StoredLatents(frames, tmp_path / "part", {}), frames), everything(whole, frames))


def test_latents_of_before_december_2026_are_still_those_of_their_encoder():
    encoder = ResNetEncoder(img_size=32, width=8, depth=1, emb_dim=4)
    with torch.no_grad():
        for tensor in encoder.state_dict().values():
            tensor.fill_(0.5)
    settings = {"_target_": "models.networks.resnet_encoder.ResNetEncoder", "width": 8, "img_size": 32}
    made_by_revision_77772fb = "d3c88aa7097b1a05ccf210526be34d592aa3f828dc0c532f6b341f16eabfe8fa"
    assert encoder_sha256(encoder, settings) == made_by_revision_77772fb
    assert encoder_sha256(encoder, settings | {"width": 16}) != made_by_revision_77772fb


def changed_encoder(frames):
    next(iter(frames.encoder.state_dict().values())).add_(1e-3)
    return frames, {}


OTHERS = {
    "weights": (changed_encoder, "holds another encoder (its weights, sizes or preprocessing); delete it (rm -r "),
    "settings": (lambda frames: (frames, {"img_size": 64}), "holds another encoder"),
    "data": (lambda frames: (dataclasses.replace(frames, numbers=range(11)), {}), "holds other trajectories"),
    "type": (lambda frames: (dataclasses.replace(frames, dtype="bf16"), {}), "latent_dtype): float32 instead"),
    "precision": (lambda frames: (dataclasses.replace(frames, precision="bf16"), {}), "another precision: float32"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_other_latents_are_refused_in_one_line(tmp_path, frames, case):
    StoredLatents(frames, tmp_path / "latents", {})
    change, message = OTHERS[case]
    with pytest.raises(ValueError) as error:
        StoredLatents(change(frames)[0], tmp_path / "latents", change(frames)[1] if case == "settings" else {})
    assert message in str(error.value) and "made anew" in str(error.value) and "\n" not in str(error.value)


def test_images_or_preprocessing_that_changed_are_noticed(tmp_path, frames, monkeypatch):
    StoredLatents(frames, tmp_path / "latents", {})
    read = type(frames.trajectories).frames
    monkeypatch.setattr(type(frames.trajectories), "frames", lambda self, *which: 255 - read(self, *which))
    with pytest.raises(ValueError, match=r"does not hold what the encoder makes of the images \(trajectory 0"):
        StoredLatents(frames, tmp_path / "latents", {})


def test_a_file_cut_short_and_a_folder_of_others_are_refused(tmp_path, frames):
    StoredLatents(frames, tmp_path / "latents", {})
    with (tmp_path / "latents" / LATENTS).open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ValueError, match="has 1000 bytes instead of 983040"):
        StoredLatents(frames, tmp_path / "latents", {})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds files that are no latents"):
        StoredLatents(frames, tmp_path / "other", {})


def test_a_disk_with_too_little_room_is_refused_before_anything_is_encoded(tmp_path, frames, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 500_000, 500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(FramesToEncode, "encode", lambda *_: pytest.fail("encoded"))
    with pytest.raises(ValueError, match=r"latent_cache=disk needs 0.000983 GB in .*, where 0.0005 GB are free"):
        StoredLatents(frames, tmp_path / "latents", {})
    assert not (tmp_path / "latents").exists()


def test_a_disk_that_fills_is_waited_for(tmp_path, frames, monkeypatch):
    write, failures = latent_store._write_all, []

    def full_for_a_while(handle, data, offset):
        if offset and len(failures) < 2:
            failures.append(offset)
            raise OSError(28, "No space left on device")
        write(handle, data, offset)

    monkeypatch.setattr(latent_store, "_write_all", full_for_a_while)
    stored = StoredLatents(frames, tmp_path / "latents", {}, Retry(1.0, pause=0.01))
    assert len(failures) == 2
    assert torch.equal(everything(stored, frames), expected(frames))


def test_runs_that_start_together_make_it_once(tmp_path, frames, monkeypatch):
    encoded, made = FramesToEncode.encoded, []
    monkeypatch.setattr(FramesToEncode, "encoded", lambda self, after: made.append(after) or encoded(self, after))
    threads = [threading.Thread(target=StoredLatents, args=(frames, tmp_path / "latents", {})) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [0]


def test_another_process_reads_the_same(tmp_path, frames):
    stored = StoredLatents(frames, tmp_path / "latents", {})
    trajectory, step = torch.tensor([[3, 0]]), torch.tensor([[2, 39]])
    with multiprocessing.get_context("fork").Pool(1) as pool:
        there = pool.apply(stored.read, (trajectory, step))
    assert torch.equal(there, stored.read(trajectory, step))


def test_float16_refuses_what_it_cannot_hold(frames):
    loud = dataclasses.replace(frames, encoder=torch.nn.Identity(), dtype="float16")
    with pytest.raises(ValueError, match="holds no number above 65504, and this encoder gives such; use bf16"):
        loud.encode(torch.full((1, 2, 2), 1e6))
