"""Kill trainings and evaluations at random moments, for real: ``python -m tests.kills --kills 50``."""

from __future__ import annotations

import argparse
import logging
import random
import tempfile
import time
from pathlib import Path

from tests.killing import PLANNING, TRAINING, kill_often, prepare

log = logging.getLogger("kills")


def main() -> None:
    """Say how many kills were survived; an AssertionError says what was not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each of the two")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the moments")
    given = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    log.setLevel(logging.INFO)
    log.info("random moments of --seed %d", given.seed)
    for name, work in (("training", TRAINING), ("planning", PLANNING)):
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as root:
            prepare(Path(root))
            runs, further = kill_often(work, Path(root), given.kills, given.seed)
        seconds = time.monotonic() - began
        log.info(
            "%s: %d kills -9 in %d runs, %d of them after something new was saved, %.0f s; after each everything saved "
            "could be read, nothing was lost, and every run ended with what the undisturbed one has",
            name, given.kills, runs, further, seconds,
        )  # fmt: skip


if __name__ == "__main__":
    main()
