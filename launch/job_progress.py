"""How far the jobs of a study are, and how long they will take: a bar in a terminal, else a line now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from launch.job import Job
from utils.reading.json_file import RESULTS_BYTES, read_json

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0  # between lines, where there is no terminal


class Progress:
    """Shows what runs, with the time that is left for each job and for all.

    A job is expected to take as long as those with its label took, or, before there is one, as those of its function.

    Args:
        jobs: All.
        results: What is kept of them.
        folder: Where.
        num_workers: Jobs at a time.
    """

    def __init__(self, jobs: Sequence[Job], results: Mapping[str, Any], folder: Path, num_workers: int) -> None:
        self._waiting = {job.name: job for job in jobs if job.name not in results}
        self._num_workers, self._began = num_workers, dict[str, float]()
        self._took: dict[str, list[float]] = {}
        for job in jobs:
            if job.name in results and (seconds := _kept_seconds(folder / f"{job.name}.json")) is not None:
                self._note(job, seconds)
        self._is_terminal, self._said = sys.stderr.isatty(), 0.0
        form = "{n_fmt}/{total_fmt} stages |{bar:20}| {elapsed}{postfix}"
        self._bar = tqdm(total=len(jobs), initial=len(results), bar_format=form, disable=not self._is_terminal)
        self._done, self._total = len(results), len(jobs)

    def show(self, running: Sequence[Job]) -> None:
        """Say what runs now."""
        now = time.monotonic()
        for job in running:
            self._began.setdefault(job.name, now)
        text = f"{self._left_of_all(running, now)}; {' + '.join(self._with_time(job, now) for job in running)}"
        if self._is_terminal:
            self._bar.set_postfix_str(text)
        elif running and now - self._said >= LINE_SECONDS:
            self._said = now
            log.info("%d/%d stages, %s", self._done, self._total, text)

    def finished(self, job: Job, seconds: float) -> None:
        """Count a job that is done."""
        self._note(job, seconds)
        del self._waiting[job.name]
        self._done += 1
        self._bar.update()
        if not self._is_terminal:
            log.info("%d/%d stages, %s took %s", self._done, self._total, job.name, _duration(seconds))

    def failed(self, job: Job, error: Exception) -> None:
        """Say at once that a job failed; the end says it again."""
        del self._waiting[job.name]
        log.warning("%s", error)

    def _note(self, job: Job, seconds: float) -> None:
        for kind in (job.label, job.run.__name__):
            self._took.setdefault(kind, []).append(seconds)

    def _expected(self, job: Job) -> float | None:
        known = self._took.get(job.label) or self._took.get(job.run.__name__)
        return median(known) if known else None

    def _left_of(self, job: Job, now: float) -> float | None:
        expected = self._expected(job)
        return None if expected is None else max(0.0, expected - (now - self._began.get(job.name, now)))

    def _with_time(self, job: Job, now: float) -> str:
        left = self._left_of(job, now)
        return (
            f"{job.name} ({_duration(left)} left)" if left else f"{job.name} ({_duration(now - self._began[job.name])})"
        )

    def _left_of_all(self, running: Sequence[Job], now: float) -> str:
        left = [self._left_of(job, now) for job in self._waiting.values()]
        known = [seconds for seconds in left if seconds is not None]
        if len(known) < len(left):
            return f"more than {_duration(sum(known) / self._num_workers)} left" if known else "time left not known yet"
        return f"about {_duration(sum(known) / self._num_workers)} left"

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.close()
        if not self._is_terminal:
            log.info("%d/%d stages", self._done, self._total)


def _kept_seconds(path: Path) -> float | None:
    made = read_json(path, dict, most=RESULTS_BYTES).get("made")
    try:
        return float(made["end"] - made["begin"])  # type: ignore[index]
    except (TypeError, KeyError):  # an earlier version did not say
        return None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d} h" if hours else f"{minutes}:{rest:02d} min" if minutes else f"{rest} s"
