"""Planning by gradient descent on the actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from planning.noise import EpisodeNoise
from planning.planner import CostFn, Plan, Planner

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor], float], torch.optim.Optimizer]] = {
    "sgd": lambda actions, lr: torch.optim.SGD(actions, lr=lr),
    "momentum": lambda actions, lr: torch.optim.SGD(actions, lr=lr, momentum=0.9),
    "adam": lambda actions, lr: torch.optim.Adam(actions, lr=lr),
    "adamw": lambda actions, lr: torch.optim.AdamW(actions, lr=lr),
}


class GDPlanner(Planner):
    """Gradient descent through the world model, all episodes in one batch.

    Args:
        horizon, opt_steps, sample_type, rollout_type, eval_every: see ``Planner``.
        lr: step size in z-scored action units, > 0.
        action_noise: standard deviation of the normal noise added after every step, >= 0.
        optimizer_type: "sgd", "momentum" (0.9), "adam" or "adamw".

    Source: Parthasarathy et al., arXiv 2512.09929, section 3; open loop 300 steps at lr 0.3, MPC 100 at 0.2.
    """

    def __init__(
        self,
        horizon: int = 5,
        opt_steps: int = 300,
        lr: float = 0.3,
        action_noise: float = 0.003,
        sample_type: str = "randn",
        optimizer_type: str = "adam",
        rollout_type: str = "regular",
        eval_every: int = 10,
    ) -> None:
        super().__init__(horizon, opt_steps, sample_type, rollout_type, eval_every)
        if lr <= 0 or action_noise < 0:
            raise ValueError(f"planner.lr must be > 0 and planner.action_noise >= 0, got {lr} and {action_noise}")
        if optimizer_type not in OPTIMIZERS:
            raise ValueError(f"planner.optimizer_type must be one of {', '.join(OPTIMIZERS)}, got {optimizer_type!r}")
        self.lr, self.action_noise, self.optimizer_type = lr, action_noise, optimizer_type
        # a process's first optimiser imports for seconds: not on the clock of the first plan
        OPTIMIZERS[optimizer_type]([torch.zeros(1, requires_grad=True)], lr)

    def optimize(self, cost: CostFn, actions_init: Tensor, noise: EpisodeNoise) -> Plan:
        """See ``Planner.optimize``."""
        actions = actions_init.detach().clone().requires_grad_()
        optimizer = OPTIMIZERS[self.optimizer_type]([actions], self.lr)
        trace: list[tuple[int, Tensor]] = []
        for step in range(self.opt_steps):
            with torch.enable_grad():
                value = cost(actions[:, None]).squeeze(1)  # (B,)
                # sum, not mean: a problem's gradient must not depend on how many are batched with it
                actions.grad = torch.autograd.grad(value.sum(), actions)[0]
            if step % self.eval_every == 0:
                trace.append((step, value.detach()))
            optimizer.step()
            if self.action_noise:
                with torch.no_grad():
                    actions += self.action_noise * noise.randn(*actions.shape[1:])
        with torch.no_grad():
            final = cost(actions[:, None]).squeeze(1)
        trace.append((self.opt_steps, final))
        return Plan(actions.detach(), final, trace, self.opt_steps + 1, self.opt_steps)
