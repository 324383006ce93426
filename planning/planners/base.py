"""What every planner is: an optimiser of a cost over action blocks. It knows tensors, nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.rollout_type import ROLLOUT_TYPES
from planning.planners.noise import EpisodeNoise
from planning.planners.patience import Patience
from planning.planners.plan import TERA, ActionSpace, Budget, CostFn, Plan, RolloutFlops, Work
from planning.planners.search import Search
from utils.ranges import Count, Limit, Period, Quantiles, Share, Small

SAMPLE_TYPES = ("randn", "zero", "proposal")


class Planner(ABC):
    """Base of all planners.

    A plan is the best of all action sequences that were evaluated, judged by the model. Deviation: the sources return
    the last iterate (GD) or the last mean (CEM, MPPI, GradCEM), which are among them.

    Args:
        horizon: T, blocks planned ahead, >= 1.
        opt_steps: Optimisation steps (gradient steps, or iterations of sampling), >= 1.
        rollout_type: "regular": the model sees up to ``num_hist`` frames, as in training; "custom": the last one only;
            "custom_as_released": see ``models/rollout_type.py``.
        eval_every: a cost is recorded for the trace every that many steps, >= 1.
        clip_actions: Keep actions within the data set's range (true), or between two quantiles of its actions, such as
            [0.02, 0.98].
        budget_ms: Milliseconds that one plan may take, see ``Budget``; None sets no limit. With a limit, a planner's
            first plan is preceded by two rollouts off the clock: what a process does once (kernels to load, caches to
            fill) is not charged, and the length of a single rollout is known.
        budget_evals: Rollouts per episode that one plan may take; None sets no limit.
        budget_tflops: 10^12 floating-point operations per episode that one plan may take, by the formulas of
            ``models/flops.py``; None sets no limit.
        stop_gain: Share of its best cost, in [0, 1), that an episode must gain within ``stop_steps`` steps, or else its
            search ends; None: no search ends early.
        stop_steps: See there, >= 1.

    Attributes:
        clip_quantiles: The quantiles of the data's actions that ``clip_actions`` stands for; (0, 1) is the range.
        sample_type: Initial actions: "randn" (standard normal), "zero" (zero raw action), "mean" (the data set's mean
            action, zero in z-scored units), "proposal" (the model's).
        differentiates: Whether it asks for gradients, which a simulator cannot give.
        num_starts: Initial sequences per episode.
        adds_proposal: Whether a new proposal is a further start where the first one is the rest of the last plan.
        step_evaluations: Rollouts per episode of one step; a subclass sets it before it calls this constructor.
        shortest: Rollouts per episode of the shortest possible plan; set likewise.
        shortest_gradients: How many of them are differentiated; None: all, if it ``differentiates``.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    sample_type = "zero"
    differentiates = False
    num_starts = 1
    adds_proposal = False
    step_evaluations: int
    shortest: int
    shortest_gradients: int | None = None

    def __init__(
        self,
        horizon: Small,
        opt_steps: Count,
        rollout_type: str = "regular",
        eval_every: Period = 1,
        clip_actions: bool | Quantiles = False,
        budget_ms: Limit | None = None,
        budget_evals: Period | None = None,
        budget_tflops: Limit | None = None,
        stop_gain: Share | None = None,
        stop_steps: Count = 5,
    ) -> None:
        for key, value in (
            ("horizon", horizon),
            ("opt_steps", opt_steps),
            ("eval_every", eval_every),
            ("stop_steps", stop_steps),
        ):
            if value < 1:
                raise ValueError(f"planner.{key} must be at least 1, got {value}")
        if rollout_type not in ROLLOUT_TYPES:
            raise ValueError(f"planner.rollout_type must be one of {', '.join(ROLLOUT_TYPES)}, got {rollout_type!r}")
        if budget_ms is not None and not budget_ms > 0:
            raise ValueError(f"planner.budget_ms must be > 0 or null, got {budget_ms}")
        if budget_evals is not None and budget_evals < self.shortest:
            raise ValueError(
                f"planner.budget_evals={budget_evals} does not allow one step, which takes {self.shortest} rollouts "
                "with what is evaluated at the end: raise it, or let a step take fewer (num_samples, num_starts)"
            )
        if budget_tflops is not None and not budget_tflops > 0:
            raise ValueError(f"planner.budget_tflops must be > 0 or null, got {budget_tflops}")
        if stop_gain is not None and not 0 <= stop_gain < 1:
            raise ValueError(f"planner.stop_gain must be in [0, 1) or null, got {stop_gain}")
        self.horizon, self.opt_steps, self.eval_every = horizon, opt_steps, eval_every
        self.patience = None if stop_gain is None else Patience(stop_gain, stop_steps)
        self.clip_actions, self.clip_quantiles = bool(clip_actions), _ends(clip_actions)
        self.budget = Budget(budget_ms, budget_evals, budget_tflops)
        self._rollout_seconds: float | None = None if budget_ms else 0.0
        self.rollout = ROLLOUT_TYPES[rollout_type]

    def optimize(
        self, cost: CostFn, actions_init: Tensor, noise: EpisodeNoise, space: ActionSpace | None = None
    ) -> Plan:
        """Lower the cost of each of B independent problems.

        Args:
            cost: What is minimised.
            actions_init: (B, T, A) z-scored blocks to start from, see ``initial_actions``.
            noise: One stream per problem.
            space: What is known of actions; None: nothing.

        Raises:
            ValueError: If actions shall be clipped to a range that ``space`` does not have, or ``budget_tflops`` does
                not allow one step.
        """
        known = ActionSpace.plain(actions_init) if space is None else space
        if self.clip_actions and known.low is None:
            raise ValueError(
                "planner.clip_actions=true needs the range of the data set's actions, which this model was saved "
                "without and no data set gives: set planner.clip_actions=false"
            )
        if self._rollout_seconds is None:
            self._rollout_seconds = Search(cost, self.budget, 1, known, False).seconds_of_one(actions_init[:, None])
        flops = self._rollout_flops(cost, actions_init.shape[1])
        settings = (self.budget, self.eval_every, known, self.clip_actions, self._rollout_seconds, self.patience)
        search = Search(cost, *settings, flops, self.differentiates)
        start = search.clip(actions_init.detach())
        self._search(search, start, noise)
        return replace(search.finish(), initial_cost=search.initial_cost(start))

    def limit_time(self, milliseconds: float, anew: bool = False) -> None:
        """Give each of the next plans so many milliseconds.

        Args:
            milliseconds: See ``Budget``, > 0.
            anew: Whether the length of a rollout is measured again before the next plan, off the clock.
        """
        self.budget = replace(self.budget, milliseconds=milliseconds)
        if anew:
            self._rollout_seconds = None

    def require_affordable(self, flops: RolloutFlops) -> None:
        """Refuse a budget of floating-point operations that is too small for one step.

        Args:
            flops: Of one rollout, the longest that will be asked for.

        Raises:
            ValueError: Naming the key, its value and what is needed.
        """
        gradients = self.shortest_gradients
        if gradients is None:
            gradients = self.shortest if self.differentiates else 0
        shortest = Work(self.shortest, gradients)
        if not replace(self.budget, evaluations=None).allows(shortest, flops):
            raise ValueError(
                f"planner.budget_tflops={self.budget.tflops:g} does not allow one step, which takes "
                f"{flops.of(shortest) / TERA:.3g} TFLOP with what is evaluated at the end: raise it, or let a step "
                "take fewer rollouts (num_samples, num_starts) or shorter ones (horizon)"
            )

    def _rollout_flops(self, cost: CostFn, horizon: int) -> RolloutFlops | None:
        """What one rollout takes, where that is limited."""
        if self.budget.tflops is None:
            return None
        known = getattr(cost, "rollout_flops", None)
        if known is None:
            raise ValueError("planner.budget_tflops needs a cost with rollout_flops; use planner.budget_evals")
        flops: RolloutFlops = known(horizon)
        self.require_affordable(flops)
        return flops

    @abstractmethod
    def _search(self, search: Search, start: Tensor, noise: EpisodeNoise) -> None:
        """Evaluate candidates through ``search``, from ``start`` (B, T, A), and end with evaluating the outcome."""

    def initial_actions(
        self, noise: EpisodeNoise, space: ActionSpace, warm_start: Tensor | None = None, horizon: int | None = None
    ) -> Tensor:
        """Where ``optimize`` starts: (B, horizon, A) z-scored.

        Args:
            noise: One stream per problem.
            space: Gives the zero action and the proposal.
            warm_start: (B, t, A) what is left of the previous plan; it is completed by new blocks.
            horizon: Blocks to plan, at most ``self.horizon``; None means that.
        """
        length = self.horizon if horizon is None else horizon
        kept = 0 if warm_start is None else min(warm_start.shape[1], length)
        fresh = self._fresh_actions(kept, length, noise, space)
        return fresh if warm_start is None else torch.cat([warm_start[:, :kept], fresh], 1)

    def _fresh_actions(self, first: int, end: int, noise: EpisodeNoise, space: ActionSpace) -> Tensor:
        """The blocks from ``first`` up to ``end`` (B, end - first, A) of a plan of which no more is known."""
        steps = end - first
        if self.sample_type == "randn":
            return noise.randn(steps, space.zero.numel())
        if self.sample_type == "mean":
            return space.zero.new_zeros(len(noise), steps, space.zero.numel())
        if self.sample_type == "zero":
            return space.zero.expand(len(noise), steps, -1).clone()
        assert space.proposal is not None, "whoever plans asks the model, which refuses if it has none"
        if space.proposal.shape[1] != self.horizon:
            raise ValueError(
                f"planner.horizon={self.horizon}: the model's proposal has {space.proposal.shape[1]} blocks; set "
                f"planner.horizon={space.proposal.shape[1]}, or use a planner that does not begin with a proposal"
            )
        return space.proposal[:, first:end]


def _ends(clip_actions: bool | Sequence[float]) -> tuple[float, float] | None:
    """The quantiles that actions are clipped to, if they are."""
    if isinstance(clip_actions, bool):
        return (0.0, 1.0) if clip_actions else None
    if len(clip_actions) != 2 or not 0 <= clip_actions[0] < clip_actions[1] <= 1:
        raise ValueError(
            "planner.clip_actions must be true, false, or two quantiles [low, high] with 0 <= low < high <= 1, got "
            f"{list(clip_actions)}"
        )
    return clip_actions[0], clip_actions[1]
