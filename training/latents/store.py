"""Latents of all frames of a data set in one file, made once and read by every run that can use them."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from xxhash import xxh3_64_digest

from training.latents.cache import LATENT_DTYPES, FramesToEncode
from training.latents.identity import MEANING, identity
from utils.files import write_json
from utils.folder_lock import holding
from utils.links import check_contents
from utils.machine import free_bytes
from utils.reading.json_file import read_json
from utils.reading.opening import FileError, read_regular
from utils.retry import Retry

log = logging.getLogger(__name__)

LATENTS, UNFINISHED, IDENTITY, PROGRESS = "latents.bin", "latents.part", "identity.json", "progress.json"
SUMS = "checksums.bin"  # XXH3 of each frame, 8 bytes; caches of earlier versions have none
SECONDS_BETWEEN_NOTES = 10.0
SPARE_BYTES = 1 << 20
PROBES = 4
TOLERANCE = 0.02  # relative difference to what the encoder says today; bf16 arithmetic differs by 0.004


def latent_folder(named: str | None, model_directory: str) -> Path:
    """Where latents are: in the folder that ``training.latent_dir`` names, or beside the base they belong to."""
    base = Path(model_directory)
    return Path(named or (base.parent if base.is_file() else base) / "latents")


class StoredLatents:
    """A ``FrameSource`` that reads from a folder of latents, which it makes if there are none.

    Rows are read where they are needed, not mapped: a mapped file on a lost mount ends the process, a failing read is
    an error that can be waited for. What is read often stays in the system's cache of files.

    Args:
        frames: Whose latents are wanted.
        folder: Where they are, or will be.
        settings: Of the encoder, plain values: what its tensors do not show, e.g. the size of the images.
        retry: What to do while they are made and the disk is full or away.

    Raises:
        ValueError: If the folder holds other latents, or its disk has too little room; one line that says what to do.
    """

    field: Literal["visual", "latents"] = "latents"

    def __init__(
        self, frames: FramesToEncode, folder: Path, settings: Mapping[str, Any], retry: Retry | None = None
    ) -> None:
        self.folder, self.dtype = folder, LATENT_DTYPES[frames.dtype]
        self._first, self._shape = frames.first_rows(), frames.shape[1:]
        self._row_bytes = frames.num_bytes // frames.shape[0]
        self._handle: int | None = None
        wanted = identity(frames, settings)
        check_contents(folder, strict=True)
        with _alone_in(folder):
            _refuse_others(folder, wanted)
            if not (folder / LATENTS).exists():
                _make(frames, folder, wanted, retry or Retry())
            self._sums = _read_sums(folder, frames.shape[0])
        self._sound = bytearray(frames.shape[0])  # 1: this process has compared the frame with its checksum
        self._probe(frames)

    def read(self, trajectory: Tensor, step: Tensor) -> Tensor:
        """Features (B, F, P, D) at (trajectory, raw step), two (B, F) tensors, in the type they are kept in.

        Raises:
            OSError: If the file cannot be read.
            FileError: If a frame is damaged.
        """
        rows = self._first[trajectory] + step
        data = bytearray(rows.numel() * self._row_bytes)
        view = memoryview(data)
        for place, row in enumerate(rows.flatten().tolist()):
            self._fill(view[place * self._row_bytes : (place + 1) * self._row_bytes], row)
        return torch.frombuffer(data, dtype=self.dtype).view(*rows.shape, *self._shape)

    def _fill(self, target: memoryview, row: int) -> None:
        try:
            if self._handle is None:
                self._handle = os.open(self.folder / LATENTS, os.O_RDONLY)
            if os.preadv(self._handle, [target], row * self._row_bytes) != len(target):
                raise OSError(f"{self.folder / LATENTS}: cut short after it was opened; {_remedy(self.folder)}")
            if self._sums and not self._sound[row]:
                if xxh3_64_digest(target) != self._sums[8 * row : 8 * row + 8]:
                    raise FileError(f"{self.folder / LATENTS} is damaged in frame {row}; {_remedy(self.folder)}")
                self._sound[row] = 1
        except (OSError, FileError):
            self._close()  # a mount that comes back wants its files opened anew
            raise

    def _close(self) -> None:
        if self._handle is not None:
            with contextlib.suppress(OSError):
                os.close(self._handle)
            self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        """Another process opens the file itself."""
        return self.__dict__ | {"_handle": None}

    def __del__(self) -> None:
        self._close()

    def _probe(self, frames: FramesToEncode) -> None:
        """Encode a few frames again: equal sums of weights do not show that images or preprocessing are the same."""
        picked = torch.linspace(0, len(frames.numbers) - 1, min(PROBES, len(frames.numbers))).long().tolist()
        for number in {frames.numbers[place] for place in picked}:
            step = int(frames.trajectories.lengths[number]) - 1
            kept = self.read(torch.tensor([[number]]), torch.tensor([[step]]))[0].float()
            now = frames.encode(frames.trajectories.frames(number, [step])).float()
            if not (kept - now).norm() <= TOLERANCE * now.norm():
                raise ValueError(
                    f"{self.folder} does not hold what the encoder makes of the images (trajectory {number}, frame "
                    f"{step}): one of them has changed; {_remedy(self.folder)}"
                )


def _refuse_others(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse a folder with anything but these latents, whole or in part."""
    path = folder / IDENTITY
    if not path.exists():
        if folder.exists() and any(folder.glob("[!.]*")):
            raise ValueError(f"training.latent_dir={folder} holds files that are no latents; name another folder")
        return
    found = read_json(path, dict, _remedy(folder))
    for key, value in wanted.items():
        if found.get(key) != value:
            more = f": {found.get(key)} instead of {value}" if key not in ("encoder", "data") else ""
            raise ValueError(f"training.latent_dir={folder} holds {MEANING[key]}{more}; {_remedy(folder)}")
    whole, (frames, patches, width) = folder / LATENTS, wanted["shape"]
    expected = frames * patches * width * LATENT_DTYPES[wanted["dtype"]].itemsize
    if whole.exists() and whole.stat().st_size != expected:
        raise ValueError(f"{whole} has {whole.stat().st_size} bytes instead of {expected}; {_remedy(folder)}")


def _remedy(folder: Path) -> str:
    return f"delete it (rm -r {folder}) and it is made anew, or name another training.latent_dir"


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder while latents may be made in it; another run that wants them waits, and then reads them."""
    if (folder / LATENTS).exists():  # whole, and never written again: it may be on a disk that we only read
        yield
        return
    with holding(folder, "latent cache", "name another training.latent_dir", wait=True):
        yield


def _make(frames: FramesToEncode, folder: Path, wanted: Mapping[str, Any], retry: Retry) -> None:
    """Write the latents, from where an earlier attempt was stopped; the file has its name only when it is whole."""
    row_bytes = frames.num_bytes // frames.shape[0]
    path, done = folder / UNFINISHED, _rows_done(folder)
    if not done:  # nor kept under another name
        path.unlink(missing_ok=True)
        (folder / SUMS).unlink(missing_ok=True)
    missing, free = frames.num_bytes - done * row_bytes, free_bytes(folder)
    begun = f", of which {missing / 1e9:.3g} GB are still to come" if done else ""
    log.info("latent cache in %s, %s%s (%.3g GB are free)", folder, frames.describe(), begun, free / 1e9)
    if missing + SPARE_BYTES > free:
        raise ValueError(
            f"training.latent_cache=disk needs {missing / 1e9:.3g} GB in {folder}, where {free / 1e9:.3g} GB are free; "
            "name a folder on another disk (training.latent_dir), set training.latent_dtype=float16 for half of it, or "
            "training.latent_cache=none"
        )
    write_json(folder / IDENTITY, dict(wanted), retry)
    handle, noted = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), time.monotonic()
    sums = os.open(folder / SUMS, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        for row, latents in frames.encoded(done):
            bits = memoryview(latents.contiguous().view(torch.uint8).numpy().tobytes())
            write = functools.partial(_write_all, handle, bits, row * row_bytes)
            retry.write("the latent cache", write, len(bits))
            said = b"".join(xxh3_64_digest(bits[at : at + row_bytes]) for at in range(0, len(bits), row_bytes))
            retry.write("the latent cache", functools.partial(_write_all, sums, memoryview(said), 8 * row))
            done = row + len(latents)
            if time.monotonic() - noted > SECONDS_BETWEEN_NOTES:
                retry.write("the latent cache", functools.partial(_note, (handle, sums), folder, done))
                noted = time.monotonic()
        retry.write("the latent cache", functools.partial(_note, (handle, sums), folder, done))
    except BaseException:
        with contextlib.suppress(OSError):  # what ended the work says more
            _note((handle, sums), folder, done)
        raise
    finally:
        os.close(handle)
        os.close(sums)
    path.replace(folder / LATENTS)
    (folder / PROGRESS).unlink(missing_ok=True)


def _write_all(handle: int, data: memoryview, offset: int) -> None:
    while len(data):
        written = os.pwrite(handle, data, offset)
        data, offset = data[written:], offset + written


def _read_sums(folder: Path, count: int) -> bytes:
    """The checksum of each frame; empty if an earlier version made the cache."""
    path = folder / SUMS
    if not path.exists():
        return b""
    sums = read_regular(path, 8 * count)
    if len(sums) != 8 * count:
        raise FileError(f"{path} has {len(sums)} bytes instead of {8 * count}; {_remedy(folder)}")
    return sums


def _note(handles: Sequence[int], folder: Path, rows: int) -> None:
    """Put the latents and their checksums on the disk, then the number of frames that can be relied on."""
    for handle in handles:
        os.fsync(handle)
    write_json(folder / PROGRESS, {"frames": rows})


def _rows_done(folder: Path) -> int:
    try:
        done = int(read_json(folder / PROGRESS, dict)["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    paths = [folder / name for name in (UNFINISHED, SUMS)]
    return done if all(path.exists() and path.stat().st_nlink == 1 for path in paths) else 0
