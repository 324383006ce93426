"""The ``speed`` group: which fast modules take the place of plain ones, and what is reused, cast and captured."""

from __future__ import annotations

import copy
import functools
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from models.interfaces import Predictor
from models.networks.vit import Transformer
from models.speed.calibration import Fastest, fastest, write_once
from models.speed.compiling import AUTO, compile_in_place, compiles, runs_kernels, what_triton_lacks
from models.speed.cpu_kernels.build import can_load, check_kernels
from models.speed.linear import ALIGNED, PreparedLinear
from models.speed.onednn import LIBRARIES, check_onednn
from models.speed.packed_transformer import PackedTransformer
from models.speed.replacing import is_large, make_fast, replace_in
from models.world_model import WorldModel
from utils.ranges import Choice

log = logging.getLogger(__name__)


@dataclass(eq=False)
class FastPaths:
    """How training and planning are made fast; each way can be turned off, and changes results by rounding only.

    Args:
        reuse_history: Reuse keys and values in rollouts, see ``models/rollout.py``.
        prepare_weights: Under autocast, planning keeps the predictor's weights in the type that products are
            computed in.
        pad_widths: Under autocast, widths are padded to a multiple of 8; "auto" does so on a GPU, where it decides
            about kernels.
        kernels: With prepared weights on a GPU, planning has the predictor's transformer out of our own kernels, see
            ``models/speed/fused_transformer.py``; "auto" is true where that can be.
        compile: Networks by ``torch.compile``, which takes a minute, once per machine; "auto" does so on a GPU: in
            training, and in planning for what ``kernels`` leaves: other predictors, and float32.
        capture: A planner's gradient step as one CUDA graph, without a GPU nothing; "auto" is true.
        cpu_kernels: Attention, norms, GELU and in planning whole layers on a CPU by our own kernels; "auto": for each
            the faster way, if a C++ compiler is there, as measured once per processor when a large model is first used;
            small models plan through packed transformers, and are left as they are otherwise.
        cpu_products: Library of float32 linear maps on a CPU: "torch", "onednn", or "auto", the faster one as measured.
        fast_dropout: In training on a CPU, masks from 16 random bits an entry; they are other masks than torch's.
        fused_optimizers: In training, one operation updates all weights of a part.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    reuse_history: bool = True
    prepare_weights: bool = True
    pad_widths: Choice = AUTO
    kernels: Choice = AUTO
    compile: Choice = AUTO
    capture: Choice = AUTO
    cpu_kernels: Choice = AUTO
    cpu_products: str = AUTO
    fast_dropout: bool = True
    fused_optimizers: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be, or has no effect."""
        for key in ("pad_widths", "kernels", "compile", "capture", "cpu_kernels"):
            if (choice := getattr(self, key)) not in (True, False, AUTO):
                raise ValueError(f"speed.{key} must be true, false or auto, got {choice!r}")
        if self.cpu_products not in LIBRARIES:
            raise ValueError(f"speed.cpu_products must be one of {', '.join(LIBRARIES)}, got {self.cpu_products!r}")
        if self.pad_widths is True and not self.prepare_weights:
            raise ValueError("speed.pad_widths=true has no effect with speed.prepare_weights=false; set that too")
        if self.kernels is True and (self.compile is True or not self.prepare_weights):
            raise ValueError("speed.kernels=true needs speed.prepare_weights=true and excludes speed.compile=true")
        self._predictor: Predictor | None = None  # built once: a compiled one is not to be compiled again
        self._source: Predictor | None = None
        self._built_for: tuple[object, ...] = ()
        self._fast: Fastest | None = None
        self._was_measured = False

    @classmethod
    def plain(cls) -> FastPaths:
        """Turn everything off."""
        return cls(False, False, False, False, False, False, False, "torch", False, False)

    def install(self, model: WorldModel, trains: bool = False, kept: Path | None = None) -> None:
        """Put fast modules in the place of plain ones, once: for encoding, training and planning.

        Args:
            model: On its device; it stays the same object, with the same names and tensors.
            trains: Whether it is about to be trained, so that its networks are compiled here.
            kept: File that may say with what a run was begun, see ``calibration.fastest``.

        Raises:
            ValueError: If what is asked for cannot be had on this machine.
        """
        device = next(model.parameters()).device
        on_cpu = device.type == "cpu"
        self._fast = fast = self._on_cpu(is_large(model), kept) if on_cpu else Fastest()
        make_fast(
            model,
            slices=self.reuse_history,
            kernels=fast.kernels,
            between=fast.between,
            onednn=fast.onednn,
            pads=not on_cpu and self.pad_widths is not False,
            dropout=on_cpu and self.fast_dropout,
        )
        if trains and model.predictor is not None and compiles(self.compile, device):
            log.info("training compiled networks: the first steps take longer (speed.compile=false)")
            compile_in_place(model.predictor)
            compile_in_place(model.encoder)

    def _on_cpu(self, large: bool, kept: Path | None) -> Fastest:
        """Choose what a CPU computes with; what is small is not worth a measurement, nor most kernels."""
        if self.cpu_kernels is True:
            check_kernels()
        if self.cpu_products == "onednn":
            check_onednn()
        chosen: dict[str, bool] = {}
        if self.cpu_kernels != AUTO:
            ours = ("attention", "attention_bf16", "between", "packed", "packed_bf16")
            chosen |= dict.fromkeys(ours, self.cpu_kernels is True)
        if self.cpu_products != AUTO:
            chosen["onednn"] = self.cpu_products == "onednn"
        self._was_measured = large and AUTO in (self.cpu_kernels, self.cpu_products)
        return replace(fastest(kept) if self._was_measured else Fastest(), **chosen)

    def keep(self, path: Path) -> None:
        """Write down what a measurement chose for the installed model, if there was one; an older record stays."""
        if self._was_measured:
            write_once(path)

    def captures(self, device: torch.device) -> bool:
        """Whether gradient steps become CUDA graphs."""
        return device.type == "cuda" and self.capture is not False

    def prepare(self, model: WorldModel) -> WorldModel:
        """Return the model as rollouts want it, which shares all but what is prepared of its predictor.

        It is made for the autocast that is on now, with the weights as they are now. Earlier results become invalid.

        Raises:
            ValueError: If widths are to be padded, or our kernels used, where that cannot be.
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
        compiled = compiles(self.compile, device) and not fused
        packs = not compiled and self._packs(predictor, device, dtype)
        if dtype is None and not compiled and not packs:
            return prepared
        wanted = (device, dtype, fused, compiled, packs)
        if self._predictor is None or self._source is not predictor or self._built_for != wanted:
            self._predictor, self._source = self._build(predictor, *wanted), predictor
            self._built_for = wanted
        _take_over(predictor, self._predictor)
        for module in self._predictor.modules():
            if isinstance(module, PackedTransformer):
                module.pack()
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

    def _packs(self, predictor: Predictor, device: torch.device, dtype: torch.dtype | None = None) -> bool:
        """Whether our kernels compute whole transformers on a CPU; ``dtype``: of prepared weights, if they are."""
        plain = dtype is None and not torch.is_autocast_enabled("cpu")
        if device.type != "cpu" or not (plain or dtype == torch.bfloat16):
            return False
        if not any(map(PackedTransformer.takes, predictor.modules())):
            return False
        large = is_large(predictor)
        if self._fast is None:
            self._fast = self._on_cpu(large, None)
        if not plain:
            return large and self._fast.packed_bf16
        return self._fast.packed or (self.cpu_kernels == AUTO and not large and can_load())

    def _build(
        self,
        predictor: Predictor,
        device: torch.device,
        dtype: torch.dtype | None,
        fused: bool,
        compiled: bool,
        packs: bool,
    ) -> Predictor:
        built = copy.deepcopy(predictor).eval().requires_grad_(False)
        if dtype is not None:
            pads = device.type == "cuda" if self.pad_widths == AUTO else self.pad_widths
            replace_in(built, nn.Linear, lambda linear: PreparedLinear(linear, dtype, ALIGNED if pads else 1))
        if packs:
            replace_in(built, Transformer, lambda one: PackedTransformer(one) if PackedTransformer.takes(one) else one)
        if fused:
            from models.speed.fused_transformer import FusedTransformer  # it imports Triton

            make_fast(built)
            replace_in(built, Transformer, FusedTransformer)
        if compiled:
            log.info("planning through a compiled predictor: the first steps take longer (speed.compile=false)")
            compile_in_place(built)
        return built


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
