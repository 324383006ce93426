"""Collect a data set: ``python -m datasets.collect env=wall``."""

from __future__ import annotations

from launch import startup
from utils import missing  # noqa: F401  (first: what comes next may not be installed)

if __name__ == "__main__":
    startup.check_command_line("python -m datasets.collect", __doc__, "collect")  # before torch is loaded

# isort: split
import functools
import logging
import signal
import sys
from pathlib import Path

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from datasets.collecting.collection import Collection
from datasets.collecting.config import CollectConfig
from datasets.collecting.workers import WorkerError
from datasets.trajectories import Trajectories
from envs.base import VectorEnv
from envs.expert import Expert
from envs.factors import chosen_factors
from envs.process_vector import EnvWorkerError
from launch.command_line import parse
from utils.links import refuse_links
from utils.printable import exit_with, printable_logs
from utils.retry import DiskError
from utils.schema import Component

logger = logging.getLogger(__name__)
_AGAIN = "finished trajectories are kept; the same command goes on from there"


@hydra.main(version_base="1.3", config_path="../conf", config_name="collect")
def main(cfg: DictConfig) -> None:
    """Simulate the trajectories of ``env`` and write them below ``$DATASET_DIR`` or to ``data_path``."""
    printable_logs()
    startup.raise_on_interrupt()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unwinds: workers and half files go
    try:
        config = parse(cfg, CollectConfig)
        for collection in collections(config):
            collection.run(num_workers=config.num_workers)
    except InstantiationException as error:
        exit_with(f"collect: {error.__cause__ or error}")
    except (WorkerError, DiskError) as error:
        exit_with(f"collect: {error}; {_AGAIN}")
    except (ValueError, OSError, EnvWorkerError) as error:
        exit_with(f"collect: {error}")
    except KeyboardInterrupt:
        logger.warning("interrupted; %s", _AGAIN)
        sys.exit(128 + signal.SIGINT)


def collections(config: CollectConfig) -> list[Collection]:
    """Prepare what a config asks for: one collection, or one per subset of the data set.

    Raises:
        ValueError: If a setting does not fit the data set.
    """
    env = config.env
    if env.collector is None:
        raise ValueError(f"env={env.name} has no collector: say in its file what acts where data are collected")
    chosen = chosen_factors(env.factors, config.vary, env.name)
    expert: Expert = env.collector.build()
    if "shape" in chosen and "shape" in expert.settings():
        raise ValueError("vary=shape: this collector must know the block; set env.collector.shape=[T,L,...] instead")
    reader: type[Trajectories] = env.data.kind()
    if reader.writer is None:
        raise ValueError(f"the data of {reader.__name__} cannot be collected: it has no writer; choose another dataset")
    writer = reader.writer()
    root = Path(config.data_path) if config.data_path else reader.usual_place(env.name)
    names = ("num_steps", "image_size", "image_dtype", "seed", "chunk_size", "disk_patience_minutes", "vary")
    common = {name: getattr(config, name) for name in names}
    make = functools.partial(Collection, expert, functools.partial(make_env, env.simulator), writer)
    if not writer.subsets:
        if config.n_val is not None:
            raise ValueError(f"n_val={config.n_val} has no effect: {root.name} has no validation folder")
        return [make(root, n_rollout=config.n_rollout, **common)]
    for subset in writer.subsets:
        refuse_links(root / subset, below=root)
    counts = {"train": config.n_rollout, "val": config.n_val}
    return [make(root / subset, n_rollout=counts[subset], subset=subset, **common) for subset in writer.subsets]


def make_env(simulator: Component[VectorEnv], image_size: int) -> VectorEnv:
    """Build the environment in this process: collecting is spread over processes already."""
    alone = {"num_workers": 0} if "num_workers" in simulator.settings else {}
    return simulator.build(image_size=image_size, **alone)


if __name__ == "__main__":
    main()
