"""What is suspicious about the tables of a data set, each in one line with the episode and the remedy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from datasets.previewing.survey import Episode, Survey
from envs.base import VectorEnv

NAMED = 5  # episodes that a line names
FAR = 5.0  # half widths of the action space
JUMP = 5.0  # usual changes from one row to the next
LATE = 1.5  # usual times between two rows
SHIFTED, WIDER = 1.0, 2.0  # mean from the normaliser's, in its deviations; deviation over the normaliser's
FEW_STARTS = 20  # different ones: an environment with fewer begins episodes alike


@dataclass(frozen=True)
class Finding:
    """A suspicious trait of a data set.

    Attributes:
        kind: One of a few words, to sort by.
        what: What is so; a clause.
        remedy: What to do; a clause.
        episodes: Numbers of those concerned; empty where it is the data set as a whole.
    """

    kind: str
    what: str
    remedy: str
    episodes: Sequence[int] = ()

    def line(self, named: Callable[[int], str]) -> str:
        """Say all of it, with episodes as ``named`` writes them."""
        rest = len(self.episodes) - NAMED
        listed = ", ".join(named(number) for number in self.episodes[:NAMED]) + (
            f" and {rest} more" if rest > 0 else ""
        )
        who = f"episode{'s' * (len(self.episodes) > 1)} {listed}: " if self.episodes else ""
        return f"{self.kind}: {who}{self.what}; {self.remedy}"


def table_findings(found: Survey, window: int, env: VectorEnv | None) -> list[Finding]:
    """Look through what was read; ``window`` is the raw steps of a sample, ``env`` the simulator if it is at hand."""
    return [
        *_broken(found),
        *_constant(found),
        *_scale(found),
        *(_outside(found, env) if env is not None else ()),
        *_short(found, window),
        *_gaps(found),
        *_twice(found),
    ]


def _broken(found: Survey) -> Iterator[Finding]:
    for episode in found.episodes:
        if episode.broken:
            kind = "truncated" if "rows for" in episode.broken else "not finite"
            yield Finding(kind, episode.broken, "leave the episode out or record it again", [episode.number])


def _constant(found: Survey) -> Iterator[Finding]:
    flat = [c for c in found.columns if c.rows > 1 and c.low == c.high]
    for column in flat:
        remedy = "leave the column out, or set env.dataset.normalize_action=false: it cannot be z-scored"
        yield Finding("constant", f"{column.name} is {column.low:g} in all rows that were read", remedy)
    everywhere = {c.index for c in flat if c.table == "actions"}
    width, idle = len(found.of("actions")), defaultdict(list)
    for episode in found.episodes:
        if constant := set(episode.constant) - everywhere:
            columns = () if len(episode.constant) == width else tuple(sorted(constant))
            idle[columns].append(episode.number)
    for columns, numbers in idle.items():
        what = ", ".join(f"actions[{i}]" for i in columns) or "the whole action"
        remedy = "leave out episodes in which the controls were switched off"
        yield Finding("constant actions", f"{what} never changes", remedy, numbers)


def _scale(found: Survey) -> Iterator[Finding]:
    """Compare with the normaliser, unless that leaves all values as they are."""
    if all((c.expected_mean, c.expected_std) == (0, 1) for c in found.columns):
        return
    for c in found.columns:
        if c.mean is None or c.std is None or c.low == c.high:
            continue
        wider, apart = c.std / c.expected_std, (c.mean - c.expected_mean) / c.expected_std
        if not 1 / WIDER <= wider <= WIDER or abs(apart) > SHIFTED:
            yield Finding(
                "wrong scale",
                f"{c.name} has mean {c.mean:.4g} and deviation {c.std:.4g}, the normaliser expects "
                f"{c.expected_mean:.4g} and {c.expected_std:.4g}",
                "check its unit, or whether these data are meant for this environment",
            )


def _outside(found: Survey, env: VectorEnv) -> Iterator[Finding]:
    columns, (lows, highs) = found.of("actions"), (bound.tolist() for bound in env.action_range())
    if len(columns) != len(lows):
        return
    for c, low, high in zip(columns, lows, highs, strict=True):
        far = 0.5 * (FAR - 1) * (high - low)  # infinite where the space is
        if c.low is not None and c.high is not None and (c.low < low - far or c.high > high + far):
            yield Finding(
                "wrong scale",
                f"{c.name} goes from {c.low:.4g} to {c.high:.4g}, the action space of env={env.name} from {low:g} to "
                f"{high:g}",
                "convert the actions to the environment's unit",
            )


def _short(found: Survey, window: int) -> Iterator[Finding]:
    short = [episode for episode in found.episodes if episode.length < window]
    if short:
        shortest = min(episode.length for episode in short)
        yield Finding(
            "truncated",
            f"shorter than a sample of {window} raw steps, the shortest of {shortest}; no training sees them",
            "lower N, num_hist or frameskip, or leave them out",
            [episode.number for episode in short],
        )


def _gaps(found: Survey) -> Iterator[Finding]:
    for episode, column, times, at in found.jumps():
        if times > JUMP:
            name = f"states[{column}] changes {times:.0f} times as far as usual between rows {at - 1} and {at}"
            yield Finding("gap", name, "split the episode there, or record it again", [episode.number])
    for episode in found.episodes:
        if not 1 / LATE < episode.late < LATE:
            rows = f"between rows {episode.late_at} and {episode.late_at + 1}"
            what = f"{episode.late:.3g} times the usual time passes {rows}"
            yield Finding("gap", what, "split the episode there, or record it again", [episode.number])


def _twice(found: Survey) -> Iterator[Finding]:
    if found.overlap:
        what = "in both the training and the validation part"
        yield Finding("leak", what, "let train_val of the reader give each to one part", found.overlap)
    for episodes in groups(found.episodes, lambda episode: episode.digest):
        numbers = [episode.number for episode in episodes]
        leak = _in_both(found, episodes)
        remedy = "keep one of them" + (", or validation is of what was trained on" if leak else "")
        yield Finding("leak" if leak else "duplicate", "the same states and actions", remedy, numbers)
    starts = list(groups(found.episodes, lambda episode: episode.start, least=1))
    twins = [each for each in starts if _in_both(found, each) and len({episode.digest for episode in each}) > 1]
    if len(starts) > FEW_STARTS and twins:
        numbers = [episode.number for each in twins for episode in each if found.parts.get(episode.number) == "val"]
        what = f"begin in exactly the state in which an episode of the training part does ({len(twins)} such states)"
        remedy = "put all recordings that continue one another, or replay one demonstration, into the same part"
        yield Finding("leak", what, remedy, numbers)


def _in_both(found: Survey, episodes: Sequence[Episode]) -> bool:
    return {"train", "val"} <= {found.parts.get(episode.number) for episode in episodes}


def groups(episodes: Sequence[Episode], key: Callable[[Episode], bytes], least: int = 2) -> Iterator[Sequence[Episode]]:
    """Put together those with one key, where there are ``least`` or more."""
    together = defaultdict(list)
    for episode in episodes:
        together[key(episode)].append(episode)
    return (each for each in together.values() if len(each) >= least)
