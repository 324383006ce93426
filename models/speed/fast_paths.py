"""How planning is made fast: what is reused, cast, padded, compiled and captured; each can be turned off."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from models.interfaces import Predictor
from models.networks.vit import Transformer
from models.speed.compiling import AUTO, compile_in_place, compiles, runs_kernels, what_triton_lacks
from models.speed.prepared_linear import ALIGNED, PreparedLinear
from models.world_model import WorldModel

log = logging.getLogger(__name__)

Choice = bool | str
M = TypeVar("M", bound=nn.Module)


class FastPaths:
    """Prepares a model for planning. The plain path, with everything off, gives the same up to rounding.

    Args:
        reuse_history: reuse keys and values in rollouts, see ``models/rollout.py``.
        prepare_weights: under autocast, keep the predictor's weights in the type that products are computed in.
        pad_widths: with that, pad widths to a multiple of 8; "auto" does so on a GPU, where it decides about kernels.
        kernels: with prepared weights on a GPU, the predictor's transformer out of our own kernels, see
            ``models/speed/fused_transformer.py``; "auto" is true where that can be.
        compile: the predictor by ``torch.compile``, which takes a minute, once per machine; "auto" does so on a GPU for
            what ``kernels`` leaves: other predictors, and float32.
        capture: a gradient step as one CUDA graph, without a GPU nothing; "auto" is true.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    def __init__(
        self,
        reuse_history: bool = True,
        prepare_weights: bool = True,
        pad_widths: Choice = AUTO,
        kernels: Choice = AUTO,
        compile: Choice = AUTO,
        capture: Choice = AUTO,
    ) -> None:
        choices = {"pad_widths": pad_widths, "kernels": kernels, "compile": compile, "capture": capture}
        for key, choice in choices.items():
            if choice not in (True, False, AUTO):
                raise ValueError(f"speed.{key} must be true, false or auto, got {choice!r}")
        if pad_widths is True and not prepare_weights:
            raise ValueError("speed.pad_widths=true has no effect with speed.prepare_weights=false; set that too")
        if kernels is True and (compile is True or not prepare_weights):
            raise ValueError("speed.kernels=true needs speed.prepare_weights=true and excludes speed.compile=true")
        self.reuse_history, self.prepare_weights = reuse_history, prepare_weights
        self.pad_widths, self.kernels, self.compile, self.capture = pad_widths, kernels, compile, capture
        self._predictor: Predictor | None = None  # built once: a compiled one is not to be compiled again
        self._source: Predictor | None = None
        self._built_for: tuple[object, ...] = ()

    @classmethod
    def plain(cls) -> FastPaths:
        """Everything off."""
        off = dict.fromkeys(("reuse_history", "prepare_weights", "pad_widths", "kernels", "compile", "capture"), False)
        return cls(**off)

    def captures(self, device: torch.device) -> bool:
        """Whether gradient steps become CUDA graphs."""
        return device.type == "cuda" and self.capture is not False

    def prepare(self, model: WorldModel) -> WorldModel:
        """The model as rollouts want it, sharing everything with ``model`` but what is prepared of its predictor.

        Under the autocast that is on now; takes over the weights as they are now. Earlier results become invalid.

        Raises:
            ValueError: If widths are to be padded, but nothing is prepared.
        """
        prepared = copy.copy(model)
        prepared.__dict__["_modules"] = dict(model._modules)
        prepared.reuse_history = self.reuse_history
        predictor = model.require_predictor()
        device = next(model.parameters()).device
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
        dtype = dtype if self.prepare_weights else None
        if dtype is None and self.pad_widths is True:
            raise ValueError("speed.pad_widths=true acts on weights in bf16 only: set precision=bf16, or auto")
        fused = self._fuses(predictor, dtype, device)
        if device.type == "cuda" and self.kernels == AUTO and not fused and (lacking := what_triton_lacks()):
            _warn_of(lacking)
        compiled = compiles(self.compile, device, "speed.compile") and not fused
        if dtype is None and not compiled:
            return prepared
        wanted = (device, dtype, fused, compiled)
        if self._predictor is None or self._source is not predictor or self._built_for != wanted:
            self._predictor, self._source = self._build(predictor, *wanted), predictor
            self._built_for = wanted
        _take_over(predictor, self._predictor)
        prepared._modules["predictor"] = self._predictor
        return prepared

    def _fuses(self, predictor: Predictor, dtype: torch.dtype | None, device: torch.device) -> bool:
        """Whether our kernels compute it: they take 16-bit weights and a transformer.

        Raises:
            ValueError: If that is asked for where it cannot be.
        """
        if self.kernels is False or self.compile is True:
            return False
        able = dtype is not None and any(isinstance(module, Transformer) for module in predictor.modules())
        able = able and runs_kernels(device)
        if self.kernels is True and not able:
            raise ValueError(
                "speed.kernels=true takes a transformer (not predictor=mlp), precision=bf16, an NVIDIA GPU from Ampere "
                "on, Triton and a C compiler; set speed.kernels=auto"
            )
        return able

    def _build(
        self,
        predictor: Predictor,
        device: torch.device,
        dtype: torch.dtype | None,
        fused: bool,
        compiled: bool,
    ) -> Predictor:
        built = copy.deepcopy(predictor).eval().requires_grad_(False)
        if dtype is not None:
            pads = device.type == "cuda" if self.pad_widths == AUTO else self.pad_widths
            replace_in(built, nn.Linear, lambda linear: PreparedLinear(linear, dtype, ALIGNED if pads else 1))
        if fused:
            from models.speed.fused_transformer import (
                FusedTransformer,  # Triton is only there with CUDA builds of torch
            )

            replace_in(built, Transformer, FusedTransformer)
        if compiled:
            log.info("planning through a compiled predictor: the first steps take longer (speed.compile=false)")
            compile_in_place(built)
        return built


def replace_in(model: nn.Module, kind: type[M], make: Callable[[M], nn.Module]) -> None:
    """Put ``make(module)`` in the place of every module of a ``kind`` within ``model``."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, kind):
                setattr(module, name, make(child))


@functools.cache  # once: every plan comes by
def _warn_of(lacking: str) -> None:
    log.warning("planning is slower than it could be: the GPU's kernels cannot be built without %s", lacking)


@torch.no_grad()
def _take_over(source: Predictor, built: Predictor) -> None:
    """Copy all weights, into the same memory."""
    targets = dict(built.named_modules())
    for name, module in source.named_modules():
        target = targets[name]
        if isinstance(target, PreparedLinear):
            assert isinstance(module, nn.Linear), "built from it"
            target.read(module)
            continue
        for own in ("_parameters", "_buffers"):
            for key, value in getattr(module, own).items():
                if value is not None:
                    getattr(target, own)[key].copy_(value)
