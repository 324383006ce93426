"""Whether the recorded actions explain the recorded changes, where the environment's own simulator is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from datasets.previewing.findings import Finding
from datasets.trajectories import Trajectories
from envs.base import EpisodeLayouts, VectorEnv
from envs.process_vector import EnvWorkerError

STEPS = 20  # rows of an episode from which one step is simulated
UNEXPLAINED = 0.3  # median error over median change
AGREES = 0.01  # of the proprio values, in their deviations
_IN_TIME, _EARLY, _LATE = 0, -1, 1


@dataclass(frozen=True)
class Replay:
    """What simulating single steps of some episodes showed.

    Attributes:
        errors: Number of the episode -> error of a step over the change in it, medians; 0 is a perfect replay.
        findings: What is suspicious.
        note: Why nothing was simulated, if so.
    """

    errors: Mapping[int, float]
    findings: Sequence[Finding]
    note: str = ""


def replay(data: Trajectories, env: VectorEnv, numbers: Sequence[int], usual: np.ndarray) -> Replay:
    """Simulate single steps of these episodes, each from a recorded state.

    Args:
        data: What was recorded.
        env: Its environment.
        numbers: Of the episodes.
        usual: (S,) usual changes of the states in a step.
    """
    sizes = {"state": (data.state_dim, env.state_dim), "action": (data.env_action_dim, env.env_action_dim)}
    for word, (here, there) in sizes.items():
        if here != there:
            note = f"{word}s have {here} entries here and {there} in env={env.name}: nothing was simulated"
            return Replay({}, [], note)
    scale = torch.from_numpy(np.where(usual > 0, usual, 1.0))
    errors: dict[int, float] = {}
    shifted: dict[int, float] = {}
    refused, elsewhere, senses = [], [], []
    for number in tqdm(numbers, desc="simulated", unit="episode", leave=False):
        if int(data.lengths[number]) < 4:
            continue
        try:
            steps = _Steps.of(data, number)
            errors[number] = steps.error(env, _IN_TIME, scale)
            shifted[number] = min(steps.error(env, shift, scale) for shift in (_EARLY, _LATE))
            elsewhere += [Finding("place", f"row {steps.rows[i]}: {why}", "check the units of the states", [number])
                          for i, why in enumerate(env.misplaced(steps.states, steps.layouts)) if why][:1]  # fmt: skip
            senses += [number] if steps.senses_otherwise(data, env, number) else []
        except (ValueError, EnvWorkerError) as error:
            refused.append(Finding("refused", f"{error}", "check the units of states and actions", [number]))
    findings = [*refused, *elsewhere, *_unexplained(errors, shifted, env)]
    if senses:
        what = f"the proprio values are not those that env={env.name} takes from the states"
        findings.append(Finding("proprio", what, "check their order and units", senses))
    return Replay(errors, findings)


def _unexplained(errors: Mapping[int, float], shifted: Mapping[int, float], env: VectorEnv) -> list[Finding]:
    wrong = [number for number, error in errors.items() if error > UNEXPLAINED]
    if not wrong:
        return []
    late = [number for number in wrong if shifted[number] < UNEXPLAINED]
    remedy = "check their units, and whether they are relative or absolute"
    if len(late) > len(wrong) / 2:
        remedy = "they do one row earlier or later: row t must hold the action taken in state t"
    worst = max(errors[number] for number in wrong)
    what = (
        f"in {len(wrong)} of {len(errors)} episodes the actions do not lead from one state to the next in "
        f"env={env.name} (error up to {worst:.2g} of the change)"
    )
    return [Finding("unexplained", what, remedy, wrong)]


@dataclass(frozen=True)
class _Steps:
    """Single steps of an episode: ``rows`` (B,), the ``states`` there and one ``later`` (B, S), all ``actions``."""

    rows: Tensor
    states: Tensor
    later: Tensor
    actions: Tensor
    layouts: EpisodeLayouts

    @classmethod
    def of(cls, data: Trajectories, number: int) -> _Steps:
        length = int(data.lengths[number])
        rows = torch.linspace(1, length - 3, min(STEPS, length - 3)).round().long()
        states, actions = (table[number][:length].double() for table in (data.states, data.actions))
        layouts = {name: value.expand(len(rows), *value.shape) for name, value in data.layout(number).items()}
        return cls(rows, states[rows], states[rows + 1], actions, layouts)

    def error(self, env: VectorEnv, shift: int, scale: Tensor) -> float:
        """Error of a step over the change in it, medians, with the actions of ``shift`` rows later."""
        env.reset(range(len(self.rows)), self.states, self.layouts)
        reached = env.step(self.actions[self.rows + shift][:, None])[:, 0].double().cpu()
        error, change = (((a - self.later) / scale).norm(dim=1) for a in (reached, self.states))
        return float(error.median() / change.median().clamp(min=0.02))

    def senses_otherwise(self, data: Trajectories, env: VectorEnv, number: int) -> bool:
        """Whether the recorded proprio values are others than those the environment would give."""
        recorded, sensed = data.proprio(number)[self.rows].double(), env.proprio(self.states).double().cpu()
        if recorded.shape != sensed.shape:
            return True
        return bool(((recorded - sensed).abs() > AGREES * data.normalizer.proprio_std).any())
