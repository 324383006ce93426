"""Online and adversarial finetuning in one run."""

from __future__ import annotations

from training.methods.adversarial import Adversarial
from training.methods.online import Online


class OnlineAdversarial(Online, Adversarial):
    """What is trained on is the online method's, the loss the adversarial one's: corrected windows are perturbed too.

    Args:
        hooks: Those of both, see ``Online`` and ``Adversarial``.

    Source: Parthasarathy et al., arXiv 2512.09929; the composition is ours.
    """

    name = "online_adversarial"
