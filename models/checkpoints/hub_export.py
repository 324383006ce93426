"""A model as a folder for a model hub: config, weights and a card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.checkpoints.native import Checkpoint
from models.checkpoints.stored_architecture import stored_architecture
from models.foreign import hub
from models.foreign.dino_wm import WITHOUT_EFFECT
from models.networks.dinov2 import RANDOM
from utils.tensor_files import write_safetensors


def hub_files(checkpoint: Checkpoint, license_name: str) -> dict[str, Any]:
    """Make the texts of a hub folder, by file name: ``config.json`` and the card.

    Raises:
        CheckpointError: If the checkpoint's config is missing.
    """
    architecture = stored_architecture(checkpoint).as_dict()
    encoder = architecture["encoder"]
    if encoder.get("weights") not in (None, RANDOM):
        architecture["encoder"] = {**encoder, "weights": None}  # a path of this machine
    env: Any = checkpoint.config.get("env")
    kept = {key: env[key] for key in ("name", "env_action_dim") if key in env} if isinstance(env, Mapping) else {}
    about = {key: value for key, value in checkpoint.about.items() if key not in hub.NOT_FOR_OTHERS}
    normalized = checkpoint.config.get("normalize_action")
    config = {
        "format": hub.FORMAT,
        "version": hub.VERSION,
        "architecture": hub.without_targets(architecture | {"env": kept})
        | ({"normalize_action": normalized} if isinstance(normalized, bool) else {}),
        "about": about | {"epoch": checkpoint.epoch},
    }
    return {"config.json": json.dumps(config, indent=2) + "\n", "README.md": _card(config, checkpoint, license_name)}


def write_hub_weights(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``model.safetensors``, with the tensors by our names."""
    kept = {name: t.contiguous() for name, t in checkpoint.tensors.items() if not WITHOUT_EFFECT.fullmatch(name)}
    write_safetensors(path, kept, {"format": "pt"})


def _card(config: Mapping[str, Any], checkpoint: Checkpoint, license_name: str) -> str:
    """Write the model card that a hub shows."""
    described, env = config["architecture"], config["architecture"]["env"].get("name", "unknown")
    classes = "\n".join(
        f"| {part} | `{node['class']}` | {_count(checkpoint, part)} |"
        for part, node in described.items()
        if isinstance(node, Mapping) and "class" in node and described.get(f"has_{part}", True)
    )
    return CARD.format(
        license=license_name,
        env=env,
        epoch=checkpoint.epoch,
        classes=classes,
        num_hist=described["num_hist"],
        frameskip=described["frameskip"],
        img_size=described["img_size"],
    )


def _count(checkpoint: Checkpoint, part: str) -> str:
    count = sum(tensor.numel() for name, tensor in checkpoint.tensors.items() if name.startswith(f"{part}."))
    return f"{count:,}" if count else "not in the file"


CARD = """---
license: {license}
library_name: pytorch
pipeline_tag: robotics
tags:
- world-model
- dino-wm
- planning
---

# A latent world model of {env}

It predicts the features of the next frame from those of the last {num_hist} and the actions between them, so that a
planner can search for actions that reach a goal image.

| part | class | numbers |
|---|---|---|
{classes}

- Images of {img_size} x {img_size} pixels, actions in blocks of {frameskip}; epochs of training: {epoch}.
- `config.json` holds the architecture, the units (means and standard deviations of raw actions, states and proprio),
  and the numbers of the trajectories that were held out. `model.safetensors` holds the weights.
- A frozen encoder whose numbers are not in the file is DINOv2, to be had from its authors.

## Use

```sh
python plan.py env={env} ckpt_path=<this folder>
python train.py env={env} ckpt_path=<this folder> method=online
```
"""
