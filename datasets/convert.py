"""Convert a data set to another format: ``python -m datasets.convert env=pusht dataset=zarr to=lerobot``."""

from __future__ import annotations

from launch import startup
from utils import missing  # noqa: F401  (first: what comes next may not be installed)

if __name__ == "__main__":
    startup.check_command_line("python -m datasets.convert", __doc__, "convert")  # before torch is loaded

# isort: split
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.errors import InstantiationException
from hydra.utils import get_class
from omegaconf import DictConfig

from datasets.converting.conversion import Conversion, check_target
from datasets.trajectories import Trajectories
from envs.config import EnvConfig
from launch.command_line import parse
from launch.conf import CONF
from utils.printable import exit_with, printable_logs
from utils.ranges import Count, NonNegative
from utils.reading.yaml_file import read_yaml
from utils.retry import DiskError
from utils.schema import OpenSettings

logger = logging.getLogger(__name__)
_AGAIN = "what is written is kept; the same command goes on from there"


@dataclass(frozen=True, kw_only=True)
class ConvertConfig(OpenSettings):
    """What is converted, to what, and where to; ``conf/convert.yaml`` says what each means."""

    env: EnvConfig
    to: str
    data_path: str | None
    images: str | None
    fps: Count
    disk_patience_minutes: NonNegative


@hydra.main(version_base="1.3", config_path="../conf", config_name="convert")
def main(cfg: DictConfig) -> None:
    """Read the data of ``env`` as ``dataset`` says, and write them as ``to`` says."""
    printable_logs()
    startup.raise_on_interrupt()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unwinds: half files go
    try:
        convert(parse(cfg, ConvertConfig))
    except InstantiationException as error:
        exit_with(f"convert: {error.__cause__ or error}")
    except DiskError as error:
        exit_with(f"convert: {error}; {_AGAIN}")
    except (ValueError, OSError) as error:
        exit_with(f"convert: {error}")
    except KeyboardInterrupt:
        logger.warning("interrupted; %s", _AGAIN)
        sys.exit(128 + signal.SIGINT)


def convert(config: ConvertConfig) -> Path:
    """Do what a config asks for; returns the file or folder.

    Raises:
        ValueError: If a setting or the data do not fit.
    """
    check_target(config.to)
    data: Trajectories = config.env.data.build()
    place = Path(config.data_path).expanduser() if config.data_path else _usual_place(config.to, data.name)
    more = {"disk_patience_minutes": config.disk_patience_minutes, "fps": config.fps}
    return Conversion(data, config.to, place, config.images, **more).run()  # type: ignore[arg-type]


def _usual_place(to: str, env: str) -> Path:
    """Where the reader of a format looks for the data of an environment."""
    settings = read_yaml(CONF / "dataset" / f"{to}.yaml", dict)
    reader: type[Trajectories] = get_class(str(settings["_target_"]))
    return reader.usual_place(env)


if __name__ == "__main__":
    main()
