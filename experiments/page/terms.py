"""The words of the page, explained at their first use and once more at its end."""

from __future__ import annotations

from markupsafe import Markup

GLOSSARY = {
    "world model": (
        "world model",
        "A network that was trained to say what a camera and an agent's own senses will show after some actions. It "
        "imagines the future in numbers (latents), not in pixels.",
    ),
    "latent": (
        "latent",
        "The numbers by which a model describes one frame. Distances between latents are what plans are judged by.",
    ),
    "planner": (
        "planner",
        "The procedure that looks for actions whose imagined outcome is near the goal. Searches (such as CEM) try many "
        "and keep the best; planning by gradient differentiates the model and improves a few step by step.",
    ),
    "mpc": (
        "MPC iteration",
        "Model-predictive control: make a plan, carry out its first part, look at what really happened, and plan anew. "
        "One round of this is an iteration.",
    ),
    "block": (
        "action block",
        "Several raw steps that the model takes at a time; their number is the frameskip.",
    ),
    "raw step": ("raw step", "The smallest step of the simulator: one action is carried out."),
    "horizon": ("horizon", "How many action blocks a plan looks ahead."),
    "objective": (
        "objective",
        "What a plan minimises: the distance between imagined latents and those of the goal. Also called cost.",
    ),
    "latched": (
        "solved (latched)",
        "The share of episodes that were inside the goal region at the end of any MPC iteration: the "
        "convention of most "
        "published numbers. Once solved, an episode counts as solved.",
    ),
    "final": (
        "solved at the end (final)",
        "The share of episodes that are inside the goal region when the budget of steps has ended, with no "
        "further help. "
        "It is lower than the latched share where agents pass through the goal without stopping.",
    ),
    "interval": (
        "95 % interval",
        "The range of true rates that fit what was observed. Other episodes of the same kind would give a rate within "
        "it about 19 times in 20. Where several training seeds were run, it covers their choice, too.",
    ),
    "floor": (
        "floor",
        "What is solved without planning: by doing nothing, or by random actions like those of the data. Success near "
        "it says nothing about a model.",
    ),
    "ceiling": (
        "ceiling",
        "What the same planner solves when the simulator itself takes the place of the model. What is missing to 100 % "
        "is not the model's fault: it is that of the objective, the search or the budget.",
    ),
    "rollout": ("rollout", "One imagined future: the model is run through all actions of one candidate plan."),
    "gradient": (
        "differentiated rollout",
        "A rollout through which gradients were computed as well, which costs about three times as much.",
    ),
    "tflop": (
        "TFLOP",
        "10^12 floating point operations, counted by formulas from the model's shapes: a cost that, unlike seconds, "
        "does not depend on the machine. Encoder, forward and backward passes are counted apart.",
    ),
    "paired": (
        "paired difference",
        "The difference between two success rates on the very same episodes. It is much more exact than comparing two "
        "separate intervals, because what makes an episode easy or hard is the same on both sides.",
    ),
    "mcnemar": (
        "exact McNemar p",
        "How often chance alone would split the episodes that only one of both solved at least this unevenly. Small "
        "values (below 0.05) speak for a difference; with many pairs some will be small by chance.",
    ),
    "gap": (
        "train-test gap",
        "How much larger a model's error is where its own plans lead than on the data it was trained on. "
        "Planning seeks "
        "out what the model is wrong about.",
    ),
    "exploitation": (
        "exploitation",
        "A plan that looks good only because the model is wrong: it was imagined at a lower cost than came true.",
    ),
    "rank correlation": (
        "rank correlation",
        "Whether two lists are in the same order (Spearman): 1 the same, 0 unrelated, -1 the reverse. Here: "
        "whether the "
        "model puts candidate plans into the order in which the simulator would.",
    ),
    "gradient norm": (
        "gradient norm",
        "How strongly the objective reacts to the actions of each step. Where it vanishes or explodes along "
        "the horizon, "
        "planning by gradient cannot work well.",
    ),
    "curvature": (
        "curvature of latent paths",
        "1 minus the cosine between successive steps of a trajectory in latent space: 0 is a straight line. Straight "
        "paths make distances to the goal an honest guide.",
    ),
    "imagination": (
        "imagination",
        "What the model expected to see, turned back into a picture by its decoder. Models without a decoder plan just "
        "as well, but their imagination cannot be shown.",
    ),
    "seed": ("training seed", "The number that fixes all random choices of one training run."),
}


class Terms:
    """Writes a term, at its first use in the page as a link that explains itself."""

    def __init__(self) -> None:
        self._used: set[str] = set()

    def __call__(self, key: str, shown: str | None = None) -> str | Markup:
        """Write the term ``key`` of the glossary as ``shown``.

        Raises:
            KeyError: If there is no such term.
        """
        name = GLOSSARY[key][0] if shown is None else shown
        if key in self._used:
            return name
        self._used.add(key)
        slug = key.replace(" ", "-")
        return Markup('<a class="term" href="#term-{0}" aria-describedby="about-{0}">{1}</a>').format(slug, name)
