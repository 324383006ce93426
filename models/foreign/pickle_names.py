"""The names that a checkpoint's pickle may contain, and what stands in for each of them."""

from __future__ import annotations

import re
from typing import Any

import torch

from utils.reading.pickle_values import MADE_BY, Inert, inert_class, storage_type
from utils.reading.pickles import ForeignNamesError

MAX_LENGTH = 200  # characters of a module, and of a name in it
CLASS = re.compile(r"_{0,2}[A-Z][A-Za-z0-9_]*", re.ASCII)
"""How classes are written. Functions, and what an attribute of a module leads to ("os.system"), look different."""
MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", re.ASCII)

CLASSES_OF = (
    # the modules themselves
    "models.",
    "dinov2.layers.",
    "dinov2.models.",
    "timm.layers.",
    "timm.models.",
    "torch._dynamo.",
    "torch.nn.modules.",
    "torch.nn.parallel.",
    # optimisers
    "accelerate.",
    "apex.optimizers.",
    "bitsandbytes.optim.",
    "timm.optim.",
    "torch.amp.",
    "torch.cuda.amp.",
    "torch.optim.",
    # if a checkpoint was written in the middle of an epoch, the data that an optimiser hangs on to
    *(f"datasets.{name}_dset." for name in ("deformable_env", "point_maze", "pusht", "traj", "wall")),
    "omegaconf.",
    "torch.utils.data.",
    "torch.utils.hooks.",
    "torchvision.transforms.",
)
"""Packages whose classes may be named."""
_METHOD = inert_class("builtins.getattr")
DTYPES = {name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype)}
EXACT = {
    "_codecs.encode",
    *(f"builtins.{name}" for name in ("bool", "bytes", "complex", "dict", "float", "int", "list")),
    *(f"builtins.{name}" for name in ("object", "slice", "str", "tuple")),
    "collections.Counter",
    "contextlib.nullcontext",
    "functools.partial",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",  # its name in Python 3.13
    "torch.Tensor",
    "torch.device",
    *(f"torch.{name}" for name in DTYPES),
    *(f"torch.per_{kind}_affine" for kind in ("channel", "tensor")),
    "torch._C.Generator",
    "torch._TorchCompileWrapper",
    "torch._dynamo.backends.debugging.aot_eager",
    "torch._dynamo.backends.debugging.eager",
    "torch.distributed.algorithms.join._JoinConfig",  # of a DistributedDataParallel
    "torch.nn.parameter.Parameter",
    "torch.serialization._get_layout",
    *(f"torch.{amp}.grad_scaler._refresh_per_optimizer_state" for amp in ("amp", "cuda.amp")),
    *(f"torch.{amp}.autocast_mode.autocast" for amp in ("amp", "cuda.amp")),
    "torch.utils.data._utils.collate.default_collate",
    "typing.Any",
    # tensors other than plain ones: sparse, 8-bit floats and unsigned integers, without data, quantised, nested
    "torch._utils._rebuild_sparse_tensor",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_meta_tensor_no_storage",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_nested_tensor",
}


def _bound_method(holder: object, name: object, *_: object) -> Inert:
    """Stand in for ``getattr(module, "forward")``: accelerate's mixed precision leaves such methods in a module.

    Nothing is looked up.

    Raises:
        ForeignNamesError: If it asks for anything of something else than a module.
    """
    if not isinstance(holder, Inert) or not isinstance(name, str):
        raise ForeignNamesError({"builtins.getattr"})
    return _METHOD((holder, name))


def stand_in(module: str, name: str) -> Any:
    """Choose what stands in for a class or function: of ``MADE_BY``, the type of a storage, or a class of ``Inert``.

    None for a name that no checkpoint needs.
    """
    wanted = f"{module[:MAX_LENGTH]}.{name[:MAX_LENGTH]}"
    if max(len(module), len(name)) >= MAX_LENGTH or "." in name:
        return None
    if found := MADE_BY.get(wanted) or storage_type(module, name):
        return found
    if wanted == "builtins.getattr":
        return _bound_method
    is_class = f"{module}.".startswith(CLASSES_OF) and CLASS.fullmatch(name) and MODULE.fullmatch(module)
    return inert_class(wanted) if is_class or wanted in EXACT else None
