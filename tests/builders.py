"""Small models, environments and data that several tests build on."""

from __future__ import annotations

import functools
import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from datasets.collecting.collection import Collection
from datasets.formats.wall import WallWriter
from datasets.units.normalizer import Normalizer
from envs.base import EpisodeLayouts, Outcome, VectorEnv
from envs.wall.dynamics import IMAGE_SIZE
from envs.wall.expert import WallRandomWalk
from envs.wall.render import draw_dots, draw_walls, resize_frames
from envs.wall.vector_env import WallVectorEnv
from models.architecture import Architecture
from models.build import build_world_model
from models.checkpoints.loading import load_weights
from models.checkpoints.native import Checkpoint, read_checkpoint, write_model_config
from models.checkpoints.own_file import write_checkpoint
from models.checkpoints.stored_architecture import stored_architecture
from models.foreign.facts import Facts
from models.interfaces import Predictor, Proposal
from models.latent import Latent
from models.networks.proprio import ProprioceptiveEmbedding
from models.networks.state_encoder import StateEncoder
from models.networks.vit import ViTPredictor
from models.tokens import TOKEN_LAYOUTS, FeatureConcat
from models.world_model import WorldModel
from planning.goals import Problem
from planning.objectives import GoalDistance
from planning.observer import Observer
from planning.planners.noise import EpisodeNoise
from planning.planners.plan import Plan
from planning.task import PlanningTask

REPOSITORY = Path(__file__).resolve().parent.parent


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers that are the same every time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def global_generators() -> bytes:
    """Where the global random generators of Python, NumPy and torch are."""
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().tolist()))  # noqa: NPY002


def latent_of(*leading: int, model: WorldModel, seed: int = 0) -> Latent:
    """Random latents (*leading) of the sizes of ``model``."""
    layout = model.layout
    visual = numbers(*leading, layout.num_patches, layout.visual_dim, seed=seed)
    return Latent(visual, numbers(*leading, layout.proprio_dim, seed=seed + 1000))


def bare_model(
    num_hist: int = 3, concat_dim: int = 1, repeats: tuple[int, int] = (1, 1), seed: int = 0, dim_head: int = 8
) -> WorldModel:
    """A ViT world model over 3 patches in eval mode; its encoder is a stand-in, give it latents."""
    widths = (6, 6, 6) if concat_dim == 0 else (6, 2, 3)
    layout = TOKEN_LAYOUTS[concat_dim](3, *widths, *repeats)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        predictor = ViTPredictor(layout.tokens_per_frame, num_hist, layout.token_dim, 2, 2, 16, dim_head, dropout=0.5)
        proprio, action = ProprioceptiveEmbedding(2, widths[1]), ProprioceptiveEmbedding(4, widths[2])
    return WorldModel(StateEncoder(widths[0]), proprio, action, predictor, None, layout, num_hist).eval()


NARROW = {"embed_dim": 48, "depth": 2, "num_heads": 3}
"""The DINOv2 that all recordings were made with."""


def foreign_model(path: Path, facts: Facts, **about_encoder: Any) -> WorldModel:
    """A recorded checkpoint of another program, with the encoder of the recordings where it brings none."""
    checkpoint = read_checkpoint(path, facts=facts)
    architecture = stored_architecture(checkpoint)
    weights = REPOSITORY / "tests/golden/dinov2_reduced.safetensors"
    brings = any(name.startswith("encoder.") for name in checkpoint.tensors)
    sizes = NARROW | ({} if brings else {"weights": str(weights)}) | about_encoder
    proprio_dim = checkpoint.tensors["proprio_encoder.patch_embed.weight"].shape[1]
    model = build_world_model(architecture.with_arguments("encoder", **sizes), 2, proprio_dim, proprio_dim)
    assert load_weights(model, checkpoint) == ([] if brings else ["encoder"])
    return model.eval().requires_grad_(False)


def jepa_wms_file(path: Path, proprio: bool = True, patches: int = 16, proprio_inputs: int = 4) -> Path:
    """A file in the layout of jepa-wms, written with torch alone: a layer of two heads, on an encoder 48 wide."""
    width, ones = 52, {"weight": torch.ones(52), "bias": torch.zeros(52)}
    layer = {
        **{f"0.norm.{key}": value for key, value in ones.items()},
        **{f"1.net.0.{key}": value for key, value in ones.items()},
        **{"0.to_qkv.weight": numbers(24, width), "0.to_out.0.weight": numbers(width, 8)},
        **{"0.to_out.0.bias": numbers(width), "1.net.1.weight": numbers(8, width)},
        **{"1.net.1.bias": numbers(8), "1.net.4.weight": numbers(width, 8), "1.net.4.bias": numbers(width)},
    }
    parts = {
        "predictor": {
            "pos_embedding": numbers(1, 4 * patches, width),
            **{f"transformer.norm.{key}": value for key, value in ones.items()},
            **{f"transformer.layers.0.{key}": value for key, value in layer.items()},
        }
    }
    for part, inputs in {"action_encoder": 10, "proprio_encoder": proprio_inputs}.items():
        if part == "action_encoder" or proprio:
            parts[part] = {"patch_embed.weight": numbers(2, inputs, 1), "patch_embed.bias": numbers(2)}
    wrapped = {part: {f"module.{key}": value for key, value in state.items()} for part, state in parts.items()}
    optimiser = {"state": {0: {"exp_avg": torch.zeros(3)}}}
    torch.save(wrapped | {"opt": optimiser, "scaler": None, "epoch": 7}, path)
    return path


def action_units(theirs: dict[str, list[float]], checkpoint: Checkpoint) -> Callable[[Tensor], Tensor]:
    """Z-scored blocks by statistics for each place in a block, in our units, which are the same for all places."""
    about = checkpoint.about["statistics"]
    mean, std = (torch.tensor(about[f"action_{key}"]).repeat(5) for key in ("mean", "std"))
    return lambda z: (z * torch.tensor(theirs["std"]) + torch.tensor(theirs["mean"]) - mean) / std


@functools.cache
def golden_model(directory: Path, encoder_weights: Path) -> WorldModel:
    """A recorded DINO-WM checkpoint with the narrow DINOv2 that all recordings were made with."""
    checkpoint = read_checkpoint(directory)
    architecture = stored_architecture(checkpoint)
    architecture = architecture.with_arguments("encoder", **NARROW, weights=str(encoder_weights))
    proprio_dim = checkpoint.tensors["proprio_encoder.patch_embed.weight"].shape[1]
    model = build_world_model(architecture, env_action_dim=2, proprio_dim=proprio_dim, state_dim=proprio_dim)
    load_weights(model, checkpoint)
    return model.eval().requires_grad_(False)


def golden_arrays(path: Path) -> dict[str, Tensor]:
    """All arrays of a recording; images channels first."""
    with np.load(path) as data:
        arrays = {name: torch.from_numpy(data[name]) for name in data.files}
    return {name: value.movedim(-1, -3) if name.endswith("_u8") else value for name, value in arrays.items()}


def near(found: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    """Assert a difference below ``relative`` times the largest expected value."""
    assert found.shape == expected.shape
    difference = (found.double() - expected.double()).abs().max().item()
    assert difference <= relative * expected.abs().max().item(), difference


class PointEnv(VectorEnv):
    """A point in the plane that moves by its actions times the ``gain`` of its layout; remembers what is asked of it.

    Attributes:
        resets: start states of every reset. ends: states at the last reset and after every step since.
        executed: raw actions of every step. rendered: rows of every rendering.
    """

    name = "point"
    state_dim = proprio_dim = env_action_dim = 2

    def __init__(self, image_size: int = 8, radius: float = 0.5) -> None:
        self.image_size, self.radius = image_size, radius
        self.resets: list[Tensor] = []
        self.ends: list[Tensor] = []
        self.executed: list[Tensor] = []
        self.rendered: list[list[int]] = []

    def default_layouts(self, num_episodes: int) -> dict[str, Tensor]:
        return {"gain": torch.ones(num_episodes, 1)}

    def sample_start_goal(self, seeds: Sequence[int], layouts: EpisodeLayouts | None = None) -> tuple[Tensor, Tensor]:
        drawn = np.stack([np.random.RandomState(seed).uniform(-4, 4, (2, 2)) for seed in seeds])
        return torch.from_numpy(drawn[:, 0].copy()), torch.from_numpy(drawn[:, 1].copy())

    def reset(self, seeds: Sequence[int], states: Tensor, layouts: EpisodeLayouts | None = None) -> Tensor:
        assert len(seeds) == len(states)
        self.states = states.double().clone()
        self.gain = (layouts or self.default_layouts(len(states)))["gain"].double()
        self.resets.append(self.states.clone())
        self.ends = [self.states.clone()]
        return self.states.clone()

    def step(self, actions: Tensor) -> Tensor:
        visited = self.states[:, None] + (self.gain[:, None] * actions.double()).cumsum(1)
        self.states = visited[:, -1]
        self.ends.append(self.states.clone())
        self.executed.append(actions.clone())
        return visited

    def render(self, rows: Tensor | None = None) -> Tensor:
        shown = self.states if rows is None else self.states[rows]
        self.rendered.append(list(range(len(self.states))) if rows is None else rows.tolist())
        colour = torch.cat([128 + 10 * shown, torch.zeros(len(shown), 1)], 1).float()
        return colour[:, :, None, None].expand(-1, -1, self.image_size, self.image_size).clone()

    def proprio(self, states: Tensor) -> Tensor:
        return states.float()

    def success(self, states: Tensor, goals: Tensor) -> Outcome:
        distance = (states - goals).norm(dim=1)
        return Outcome(distance < self.radius, distance)


class PointPredictor(Predictor):
    """What ``PointEnv`` does at gain 1, in z-scored units; each frame's prediction depends on that frame alone."""

    activations_per_token = 8

    def __init__(self, normalizer: Normalizer, frameskip: int) -> None:
        super().__init__()
        effect = (normalizer.action_std / normalizer.state_std).diag().repeat(frameskip, 1)
        self.register_buffer("effect", effect)
        self.register_buffer("drift", frameskip * normalizer.action_mean / normalizer.state_std)
        self.one = nn.Parameter(torch.ones(()))  # so that there are weights that could take gradients

    def forward(self, tokens: Tensor) -> Tensor:
        change = self.one * (tokens[..., 4:] @ self.effect + self.drift)
        return torch.cat([tokens[..., :4] + change.repeat(1, 1, 2), tokens[..., 4:]], -1)


class PointProposal(Proposal):
    """The way straight to the goal for ``PointEnv`` at gain 1; alternatives add 1, 2 ... to every number."""

    def __init__(self, horizon: int, frameskip: int = 2) -> None:
        super().__init__()
        self.horizon, self.frameskip = horizon, frameskip

    def forward(self, start: Latent, goal: Latent) -> Tensor:
        way = (goal.visual - start.visual)[:, 0] * POINT_NORMALIZER.state_std  # (B, 1, 2)
        steps = way / (self.horizon * self.frameskip)
        block = POINT_NORMALIZER.actions_to_z(steps).repeat(1, 1, self.frameskip)
        return block.expand(-1, self.horizon, -1).contiguous()

    def candidates(self, start: Latent, goal: Latent, num: int) -> Tensor:
        return self(start, goal)[:, None] + torch.arange(num)[:, None, None]


POINT_NORMALIZER = Normalizer(
    action_mean=torch.tensor([0.1, -0.2]),
    action_std=torch.tensor([0.5, 0.25]),
    state_mean=torch.tensor([1.0, -1.0]),
    state_std=torch.tensor([2.0, 3.0]),
    proprio_mean=torch.tensor([1.0, -1.0]),
    proprio_std=torch.tensor([2.0, 3.0]),
)


def point_model(num_hist: int = 1, frameskip: int = 2) -> WorldModel:
    """The true dynamics of ``PointEnv`` as a world model; its latents are the z-scored states."""
    layout = FeatureConcat(num_patches=1, visual_dim=2, proprio_dim=2, action_dim=2 * frameskip)
    predictor = PointPredictor(POINT_NORMALIZER, frameskip)
    return WorldModel(StateEncoder(2), nn.Identity(), nn.Identity(), predictor, None, layout, num_hist).eval()


def point_task(
    gains: Sequence[float] = (1.0, 1.0, 1.0), num_hist: int = 1, frameskip: int = 2, seed: int = 7, **changes: Any
) -> tuple[PlanningTask, PointEnv]:
    """One episode per gain, with a start and a goal drawn for it."""
    env, model = PointEnv(), point_model(num_hist, frameskip)
    seeds = [10 * n + 1 for n in range(len(gains))]
    states, goals = env.sample_start_goal(seeds)
    problem = Problem(seeds, states, goals, {"gain": torch.tensor(gains)[:, None]})
    observer = Observer(model, POINT_NORMALIZER)
    goal_latent = observer.present(env, env.reset(seeds, goals, problem.layouts), torch.arange(len(problem)))
    task = PlanningTask(env, observer, problem, goal_latent, GoalDistance(), seed, frameskip, **changes)
    env.resets.clear()
    return task, env


class RecordedNoise(EpisodeNoise):
    """Hands out given draws, one after the other, in the place of random ones."""

    def __init__(self, draws: Sequence[Tensor]) -> None:
        super().__init__(range(len(draws[0])))
        self.draws = list(draws)

    def randn(self, *shape: int) -> Tensor:
        drawn = self.draws.pop(0)
        assert drawn.shape == (len(self), *shape)
        return drawn


class WitnessedNoise(EpisodeNoise):
    """Ordinary noise that remembers what it gave."""

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        super().__init__(seeds, device)
        self.given: list[Tensor] = []

    def randn(self, *shape: int) -> Tensor:
        self.given.append(super().randn(*shape))
        return self.given[-1].clone()


def plan_of(actions: Tensor, evaluations: int = 1, gradient_evaluations: int = 0) -> Plan:
    """What a planner returns that has found ``actions`` (B, T, A), at no cost."""
    counts = [torch.full((len(actions),), count) for count in (evaluations, gradient_evaluations)]
    return Plan(actions, torch.zeros(len(actions)), [], *counts)


def batch_sizes(module: nn.Module) -> list[int]:
    """A list that grows by the number of rows of every call of ``module`` from now on; a predictor may be extended."""
    sizes: list[int] = []
    called = module.transformer if isinstance(module, ViTPredictor) else module
    called.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    return sizes


SMALL_WALL = {
    "num_hist": 1,
    "num_pred": 1,
    "frameskip": 5,
    "img_size": 65,
    "concat_dim": 1,
    "action_emb_dim": 10,
    "proprio_emb_dim": 10,
    "num_action_repeat": 1,
    "num_proprio_repeat": 1,
    "has_predictor": True,
    "has_decoder": True,
    "proprio_per_patch": False,
}
WALL_NORMALIZER = {
    "action_mean": [0.0, 0.1],
    "action_std": [0.8, 0.9],
    "state_mean": [32.0, 31.0],
    "state_std": [16.0, 15.0],
    "proprio_mean": [32.0, 31.0],
    "proprio_std": [16.0, 15.0],
}


def option(group: str, name: str, **changes: Any) -> dict[str, Any]:
    """A config option as plain data."""
    loaded = OmegaConf.to_container(OmegaConf.load(REPOSITORY / "conf" / group / f"{name}.yaml"), resolve=True)
    assert isinstance(loaded, dict)
    return loaded | changes


def wall_architecture(**changes: Any) -> dict[str, Any]:
    """A world model of the Wall that is as small as can be."""
    parts = {
        "encoder": option("encoder", "small"),
        "proprio_encoder": option("proprio_encoder", "fixed"),
        "action_encoder": option("action_encoder", "proprio"),
        "predictor": option("predictor", "residual", width=8, depth=1, heads=1, dim_head=8, mlp_dim=8),
        "decoder": option("decoder", "conv", width=4),
    }
    return {**SMALL_WALL, **parts, **changes}


def wall_model(architecture: dict[str, Any] | None = None, seed: int = 0, moves: bool = True) -> WorldModel:
    """The model of an architecture with random weights; ``moves=False`` leaves it at "nothing ever moves"."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_world_model(Architecture.from_dict(architecture or wall_architecture()), 2, 2, 2)
        if moves and model.predictor is not None:
            for parameter in model.predictor.parameters():
                nn.init.normal_(parameter, std=0.3)
    return model.eval()


def wall_model_directory(
    folder: Path, epoch: int | str = "latest", seed: int = 0, moves: bool = True, **changes: Any
) -> Path:
    """Write ``folder`` as a training run of a small Wall model would leave it behind."""
    architecture = wall_architecture(**changes)
    about = {"normalizer": WALL_NORMALIZER, "validation": [1, 3], "step": 1, "encoder_sha256": None}
    path = folder / "checkpoints" / f"model_{epoch}.safetensors"
    write_checkpoint(path, wall_model(architecture, seed, moves), 3, about, with_encoder=True)
    write_model_config(folder, {"env": {"name": "wall"}, **architecture})
    return folder


def wall_collection(folder: Path, expert: WallRandomWalk, **sizes: Any) -> Collection:
    """A data set of the Wall, by default of 65 pixels in uint8."""
    return Collection(
        expert, WallVectorEnv, WallWriter(), folder, **{"image_size": 65, "image_dtype": "uint8", **sizes}
    )


def wall_data(folder: Path, count: int = 5, num_steps: int = 30, **collector: Any) -> Path:
    """Collect a few trajectories of the Wall at 65 pixels."""
    return wall_collection(folder, WallRandomWalk(**collector), n_rollout=count, num_steps=num_steps).run(num_workers=1)


def render_wall(states: Tensor, layouts: EpisodeLayouts, image_size: int = IMAGE_SIZE) -> Tensor:
    """Draw dots (B, 2) and walls without an environment; returns (B, 3, image_size, image_size)."""
    door_y, wall_x = (layouts[key].to(states).reshape(-1) for key in ("fix_door_location", "fix_wall_location"))
    return resize_frames(draw_dots(states, draw_walls(door_y, wall_x)), image_size)
