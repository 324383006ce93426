"""Which way of computing is the fastest on this processor: measured once, and kept in the user's cache."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.networks.vit import Transformer
from models.speed.cpu_kernels import attention, between
from models.speed.cpu_kernels.build import cache_folder, can_load, has_tiles, load, processor
from models.speed.linear import PreparedLinear
from models.speed.onednn import has_onednn, linear
from models.speed.packed_transformer import PackedTransformer
from models.speed.replacing import make_fast, replace_in
from utils.files import write_json
from utils.reading.json_file import read_json

log = logging.getLogger(__name__)

TOKENS, WIDTH, HEADS, HEAD, HIDDEN = 196, 404, 16, 64, 2048  # of DINO-WM's predictor
SECONDS = 0.15  # for each comparison, after the first calls
GAIN = 1.03  # below, the plainer way is taken: it depends on less
FASTEST = "fastest.json"  # in the folder of a run
VERSION = 3  # of what is measured


@dataclass(frozen=True)
class Fastest:
    """The faster of two ways, for each kind of work on a CPU.

    Attributes:
        onednn: Linear maps in float32 by oneDNN; else by torch's own choice.
        attention: Attention in float32 by our kernel; else by torch's.
        attention_bf16: The same in bf16.
        between: Residual, norm and GELU by our kernels; else by torch's.
        packed: In planning in float32 all of a transformer at once, see ``PackedTransformer``; else module by module.
        packed_bf16: The same in bf16, where the processor has tile registers (AMX).
    """

    onednn: bool = False
    attention: bool = False
    attention_bf16: bool = False
    between: bool = False
    packed: bool = False
    packed_bf16: bool = False

    @property
    def kernels(self) -> tuple[torch.dtype, ...]:
        """Types for which our kernel computes attention."""
        return tuple(t for t, wins in zip(between.TYPES, (self.attention, self.attention_bf16), strict=True) if wins)


def fastest(kept: Path | None = None) -> Fastest:
    """Look up, or else measure in about a second, what is fastest here.

    Args:
        kept: What a run was begun with, which counts if it was measured on such a processor: a change in the middle of
            a run would change its results by rounding.
    """
    of_run = None if kept is None else _read(kept)
    return _fastest(torch.get_num_threads()) if of_run is None else of_run


def write_once(path: Path) -> None:
    """Write down what is fastest here for a run; a record that fits this processor stays."""
    if _read(path) is None:
        _write(path, _fastest(torch.get_num_threads()))


@functools.cache
def _fastest(threads: int) -> Fastest:
    cached = cache_folder() / f"fastest-{_key(threads)[:16]}.json"
    found = _read(cached)
    if found is None:
        log.info("measuring once which kernels are fastest on this processor")
        found = _measured()
        _write(cached, found)
    return found


def _write(path: Path, found: Fastest) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_json(path, {"key": _key(torch.get_num_threads()), "fastest": asdict(found)})
    except OSError as error:  # full or read-only: the next process measures again
        log.debug("%s was not written: %s", path, error)


def _read(path: Path) -> Fastest | None:
    try:
        read: dict[str, Any] = read_json(path, dict)
        if read["key"] != _key(torch.get_num_threads()):
            return None
        return Fastest(**{field.name: bool(read["fastest"][field.name]) for field in fields(Fastest)})
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or broken: it is measured again
        return None


def _key(threads: int) -> str:
    """Hash all that a measurement depends on."""
    limits = [f"{name}={os.environ.get(name)}" for name in ("ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")]
    parts = [processor(), torch.__version__, torch.backends.cpu.get_cpu_capability(), str(threads), str(VERSION)]
    return hashlib.sha256(json.dumps([*parts, *limits, os.environ.get("CXX")]).encode()).hexdigest()


def _measured() -> Fastest:
    ours = can_load()
    half = ours and bool(load().has_bf16())
    found = Fastest(
        onednn=has_onednn() and _wins(_product(linear), _product(F.linear)),
        attention=ours and _attends(torch.float32),
        attention_bf16=half and _attends(torch.bfloat16),
        between=ours and _wins(_between(True), _between(False)),
    )
    packs = {"packed": ours and _packs(found), "packed_bf16": ours and has_tiles() and _packs(found, torch.bfloat16)}
    found = replace(found, **packs)
    log.info("fastest here: %s", ", ".join(f"{name}={value}" for name, value in asdict(found).items()))
    return found


def _wins(new: Callable[[], object], old: Callable[[], object]) -> bool:
    """Whether ``new`` is faster, by the fastest of calls in turn: what other programs take makes calls slower only."""
    best, begin = [float("inf")] * 2, 0.0
    with torch.enable_grad():
        for number in range(1000):
            if number == 1:
                begin = time.perf_counter()  # the first calls build, load and touch memory
            for place, run in enumerate((new, old)):
                before = time.perf_counter()
                run()
                best[place] = min(best[place], time.perf_counter() - before)
            if number > 2 and time.perf_counter() - begin > SECONDS:
                break
    return best[0] * GAIN < best[1]


def _product(linear: Callable[..., torch.Tensor]) -> Callable[[], object]:
    """The two widest maps of a block, and what flows back to their inputs."""
    narrow, wide = torch.randn(TOKENS, WIDTH, requires_grad=True), torch.randn(TOKENS, HIDDEN, requires_grad=True)
    up, down = torch.randn(HIDDEN, WIDTH), torch.randn(WIDTH, HIDDEN)

    def run() -> object:
        found = linear(narrow, up, None), linear(wide, down, None)
        return torch.autograd.grad(found, (narrow, wide), (wide.detach(), narrow.detach()))

    return run


def _attends(dtype: torch.dtype) -> bool:
    """One frame's attention, forward and backward, by our kernel against what is computed without it."""
    joint = torch.randn(1, TOKENS, 3, HEADS, HEAD).to(dtype).requires_grad_()
    upstream = torch.randn(1, TOKENS, HEADS, HEAD).to(dtype)

    def plain() -> torch.Tensor:
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        if dtype == torch.float32:
            return F.scaled_dot_product_attention(query, key, value).transpose(1, 2)
        scores = (query * HEAD**-0.5) @ key.contiguous().transpose(-2, -1)  # as ``FastAttention`` writes it out
        return (torch.softmax(scores, -1) @ value.contiguous()).transpose(1, 2)

    def ours() -> torch.Tensor:
        return attention.attend(joint, frame=TOKENS)

    new, old = (lambda way=way: torch.autograd.grad(way(), joint, upstream) for way in (ours, plain))
    return _wins(new, old)


def _between(ours: bool) -> Callable[[], object]:
    """What lies between the products of a block, forward and backward."""
    values, change = (torch.randn(1, TOKENS, WIDTH, requires_grad=True) for _ in range(2))
    hidden, norm = torch.randn(1, TOKENS, HIDDEN, requires_grad=True), nn.LayerNorm(WIDTH).requires_grad_(False)

    def run() -> object:
        if ours:
            found = *between.add_norm(values, change, norm, torch.float32), between.gelu(hidden)
        else:
            total = values + change
            found = total, norm(total), F.gelu(hidden)
        return torch.autograd.grad(found, (values, change, hidden), [each.detach() for each in found])

    return run


def _packs(found: Fastest, dtype: torch.dtype | None = None) -> bool:
    """A layer forward and backward at once, against module by module in the ways that were ``found`` the fastest.

    ``dtype``: of its weights, if not float32.
    """
    given = {"dropout": 0.0, "tokens_per_frame": TOKENS}
    plain = Transformer(1, WIDTH, HIDDEN, heads=HEADS, dim_head=HEAD, **given).eval().requires_grad_(False)
    make_fast(plain, kernels=found.kernels, between=found.between, onednn=found.onednn)
    if dtype is not None:
        replace_in(plain, nn.Linear, lambda linear: PreparedLinear(linear, dtype))
    packed = PackedTransformer(plain)
    packed.pack()
    tokens = torch.randn(1, TOKENS, WIDTH, requires_grad=True)

    def run(way: nn.Module) -> object:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is not None):
            found = way(tokens)[0]
        return torch.autograd.grad(found, tokens, tokens.detach())

    return _wins(lambda: run(packed), lambda: run(plain))
