"""Collect a data set: ``python -m datasets.collect env=wall``."""

from __future__ import annotations

import logging
import signal
import sys
from pathlib import Path

import hydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from datasets.collection import Collection
from datasets.files import dataset_root
from datasets.workers import WorkerError
from utils.cli import check_types

logger = logging.getLogger(__name__)
TYPES = {"n_rollout": int, "num_steps": int, "num_workers": int, "chunk_size": int, "data_path": str}
"""Types of the settings whose default, null, does not show it."""
_AGAIN = "finished trajectories are kept; the same command goes on from there"


@hydra.main(version_base="1.3", config_path="../conf", config_name="collect")
def main(cfg: DictConfig) -> None:
    """Simulate the trajectories of ``env`` and write them below ``$DATASET_DIR`` or to ``data_path``."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unwinds: workers and half files go
    try:
        check_types(cfg, "collect", TYPES)
        behaviour = instantiate(cfg.env.collector)
        Collection(
            behaviour,
            Path(cfg.data_path) if cfg.data_path else dataset_root() / behaviour.folder,
            n_rollout=cfg.n_rollout,
            num_steps=cfg.num_steps,
            image_size=cfg.image_size,
            image_dtype=cfg.image_dtype,
            seed=cfg.seed,
            chunk_size=cfg.chunk_size,
        ).run(num_workers=cfg.num_workers)
    except InstantiationException as error:
        sys.exit(f"collect: {error.__cause__ or error}")
    except (ValueError, OSError) as error:
        sys.exit(f"collect: {error}")
    except WorkerError as error:
        sys.exit(f"collect: {error}\n{_AGAIN}")
    except KeyboardInterrupt:
        logger.warning("interrupted; %s", _AGAIN)
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
