"""Training of a proposal: the actions that led from one frame of the data to a later one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.batch import Batch
from models.interfaces import Proposal
from models.latent import Latent
from models.world_model import planning_mode
from planning.objectives import GoalDistance
from training.gradients import weighted_means
from training.methods.base import Method, TrainingContext
from utils.ranges import NonNegative, Small

LONGEST = 2**24  # model frames that a trajectory may have


class ProposalTraining(Method):
    """Regression onto the data set's own actions; encoders and predictor are frozen.

    From every sample, starts s and goals s + k, with k uniform in 1..farthest, are drawn. The targets are the first T
    of the k blocks of the data and, after them, the block of zero raw actions: reach the goal and stay there. A
    proposal without weights only remembers the samples.

    Source: Parthasarathy et al., arXiv 2512.09929, ablation of the initialisation (trained on expert trajectories).
    Deviation: goals at every distance up to the horizon, not at that distance only, since in MPC the goal comes nearer
    from one iteration to the next. Where a body moves on by itself (PointMaze), zero actions do not stop it at once.

    Args:
        pairs: Starts and goals drawn from every sample, >= 1.
        farthest: Blocks between a start and its goal at most, >= 1; None means T, those of the proposal.
        goal_weight: Of a second term, the goal distance of the frozen model's rollout under the proposal, whose
            gradient passes through the model to the network; >= 0, 0 leaves the rollout out.

    Raises:
        ValueError: Naming the key, its value and what is allowed.
    """

    name = "proposal"
    finetunes = True
    trains_dynamics = False
    _proposal: Proposal

    def __init__(self, pairs: Small = 4, goal_weight: NonNegative = 0.0, farthest: Small | None = None) -> None:
        super().__init__()
        self.pairs, self.goal_weight, self._farthest = pairs, goal_weight, farthest
        self._distance = GoalDistance()
        self._draws = torch.Generator()

    def setup(self, context: TrainingContext) -> None:
        """See ``Method.setup``.

        Raises:
            ValueError: If the goal distance is asked for and the model cannot imagine anything, or the farthest goal
                lies beyond the samples.
        """
        super().setup(context)
        if self.goal_weight and context.model.predictor is None:
            raise ValueError(
                f"method.goal_weight={self.goal_weight} needs a rollout, and this model has no predictor "
                "(has_predictor=false); set method.goal_weight=0"
            )
        self._proposal = context.model.require_proposal()
        self._refuse_short_samples(context, self.farthest, "method.farthest")
        self._draws.manual_seed(context.seed)

    @property
    def farthest(self) -> int:
        """Blocks between a start and its goal at most."""
        return self._farthest or self._proposal.horizon

    def losses(self, batch: Batch, latent: Latent, position: int) -> dict[str, Tensor]:
        """See ``Method.losses``; beside the proposal's error that of proposing the mean action always."""
        model = self.context.model
        if model.predictor is not None:
            model.predictor.eval()  # it is used, not trained: no dropout
        share = self._share(batch)
        row = torch.arange(len(batch)).repeat_interleave(self.pairs)
        # drawn for the samples of all processes: which one has a sample does not matter
        drawn = (share.total, self.pairs)
        ahead = torch.randint(1, self.farthest + 1, drawn, generator=self._draws)
        room = latent.num_frames - ahead  # starts from which the goal is still in the sample
        first = (torch.rand(drawn, generator=self._draws, dtype=torch.float64) * room).long()
        first, ahead = first[share.rows].flatten(), ahead[share.rows].flatten()
        start, goal, target = self._tasks(batch, latent, row, first, ahead)
        proposal = self._proposal(start, goal).float()
        action = F.mse_loss(proposal, target)
        if self._proposal.remembers:  # after it was asked, or it would know the answers
            self._remember(batch, latent.detach())
        losses = {"loss": action, "action_loss": action.detach(), "mean_action_loss": target.square().mean()}
        if self.goal_weight:
            distance = self._distance(model.rollout(start, proposal), goal).mean()
            losses |= {"loss": action + self.goal_weight * distance, "goal_loss": distance.detach()}
        return {name: value * share.fraction for name, value in losses.items()}

    def _tasks(
        self, batch: Batch, latent: Latent, row: Tensor, first: Tensor, ahead: Tensor
    ) -> tuple[Latent, Latent, Tensor]:
        """Pick starts (n, 1), goals (n, 1) and target blocks (n, T, A).

        Args:
            batch: Samples of the data set.
            latent: (B, F) of their frames.
            row: (n,) sample.
            first: (n,) frame of the start.
            ahead: (n,) how many blocks later the goal is reached, 1..farthest.
        """
        context, device = self.context, batch.actions.device
        row, first, ahead = (each.to(device)[:, None] for each in (row, first, ahead))
        steps = torch.arange(self._proposal.horizon, device=device)
        frames = (first + steps).clamp(max=batch.actions.shape[1] - 1)  # what lies beyond the goal is replaced below
        zero = context.observer.normalizer.zero_block(context.frameskip).to(device)
        target = torch.where((steps < ahead)[..., None], batch.actions[row, frames], zero)
        known = latent.detach()
        return known[row, first], known[row, first + ahead], target

    def _remember(self, batch: Batch, latent: Latent) -> None:
        """Show the proposal all frames of a batch, numbered along each trajectory in model steps."""
        context, skip = self.context, self.context.frameskip
        chain = batch.trajectory * skip + batch.start % skip  # raw steps between model frames have chains of their own
        first = chain * LONGEST + batch.start // skip
        numbers = first[:, None] + torch.arange(latent.num_frames, device=first.device)
        zero = context.observer.normalizer.zero_block(skip).to(batch.actions)
        self._proposal.remember(latent, batch.actions, numbers, zero)

    @torch.no_grad()
    def validate(self, batches: Iterable[Batch], latents: Callable[[Batch], Latent]) -> dict[str, float]:
        """See ``Method.validate``: both errors, with goals at every distance from each sample's first frame."""
        sums, weight = {"val_action_loss": 0.0, "val_mean_action_loss": 0.0}, 0
        farthest = self.farthest
        with planning_mode(self.context.model):
            for batch in batches:
                row = torch.arange(len(batch)).repeat_interleave(farthest)
                ahead = torch.arange(1, farthest + 1).repeat(len(batch))
                start, goal, target = self._tasks(batch, latents(batch), row, torch.zeros_like(row), ahead)
                sums["val_action_loss"] += F.mse_loss(self._proposal(start, goal).float(), target).item() * len(batch)
                sums["val_mean_action_loss"] += target.square().mean().item() * len(batch)
                weight += len(batch)
        return weighted_means(sums, weight)

    def state_dict(self) -> dict[str, Any]:
        """See ``Method.state_dict``."""
        return super().state_dict() | {"draws": self._draws.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See ``Method.load_state_dict``."""
        super().load_state_dict(state)
        self._draws.set_state(state["draws"])
