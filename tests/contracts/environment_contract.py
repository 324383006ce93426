"""What every environment must do, as checks that take one; see ``envs.base.VectorEnv``."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from envs.base import VectorEnv, simulate
from envs.factors import usual_values
from envs.vary import vary

SEEDS = [3, 1, 4, 1]
STEPS = 6


def actions_of(env: VectorEnv, num_steps: int = STEPS) -> Tensor:
    """Random raw actions (B, K, env_action_dim) for ``SEEDS``, equal where the seeds are."""
    drawn = torch.randn(len(SEEDS), num_steps, env.env_action_dim, generator=torch.Generator().manual_seed(0)) / 2
    drawn[3] = drawn[1]
    return drawn


def check_sizes(env: VectorEnv) -> None:
    """Shapes and types are those that the attributes say."""
    start, goal = env.sample_start_goal(SEEDS)
    size, count = (env.image_size, env.image_size), len(SEEDS)
    assert start.shape == goal.shape == (count, env.state_dim)
    started = env.reset(SEEDS, start)
    assert started.shape == start.shape and started.isfinite().all()
    visited = env.step(actions_of(env))
    assert visited.shape == (count, STEPS, env.state_dim) and visited.isfinite().all()
    assert env.step(actions_of(env)[:, :0]).shape == (count, 0, env.state_dim)
    low, high = env.action_range()
    assert low.shape == high.shape == (env.env_action_dim,) and (low < high).all()
    proprio = env.proprio(visited)
    assert proprio.shape == (count, STEPS, env.proprio_dim) and proprio.dtype == torch.float32
    assert torch.equal(env.proprio(visited[:, 2]), proprio[:, 2])
    images = env.render()
    assert images.shape == (count, 3, *size) and images.dtype in (torch.uint8, torch.float32)
    assert images.min().item() > -1 and 1 < images.max().item() < 256, "images are 0..255"


def check_seeds(env: VectorEnv) -> None:
    """A seed draws the same start and goal whatever stands beside it, and another seed draws others."""
    start, goal = env.sample_start_goal(SEEDS)
    assert torch.equal(start[1], start[3]) and torch.equal(goal[1], goal[3])
    assert not torch.equal(start[0], start[1]) and not torch.equal(start, goal)
    alone = env.sample_start_goal(SEEDS[2:3])
    assert torch.equal(alone[0], start[2:3]) and torch.equal(alone[1], goal[2:3])
    assert env.misplaced(start) == [""] * len(SEEDS), "episodes start in possible places"


def check_determinism(make: Callable[[], VectorEnv]) -> None:
    """The same actions lead to the same states and images: again, in another environment, and alone."""
    env, other = make(), make()
    try:
        start, _ = env.sample_start_goal(SEEDS)
        first = simulate(env, SEEDS, start, actions_of(env), frame_every=3)
        for again in (env, other):
            done = simulate(again, SEEDS, start, actions_of(env), frame_every=3)
            assert torch.equal(done.states, first.states) and torch.equal(done.frames, first.frames)
        assert torch.equal(first.states[1], first.states[3]), "rows of equal seeds and actions are equal"
        alone = simulate(other, SEEDS[2:3], start[2:3], actions_of(env)[2:3], frame_every=3)
        assert torch.equal(alone.states[0], first.states[2]) and torch.equal(alone.frames[0], first.frames[2])
    finally:
        env.close()
        other.close()


def check_blocks(env: VectorEnv) -> None:
    """A block of actions does what its actions do one by one, and ``rollout`` what stepping and drawing do."""
    start, _ = env.sample_start_goal(SEEDS)
    actions = actions_of(env)
    env.reset(SEEDS, start)
    whole = env.step(actions)
    env.reset(SEEDS, start)
    singly, frames = [], [env.render()]
    for step in range(STEPS):
        singly.append(env.step(actions[:, step : step + 1]))
        frames.append(env.render())
    assert torch.equal(torch.cat(singly, 1), whole)
    env.reset(SEEDS, start)
    visited, drawn = env.rollout(actions, frame_every=2)
    assert torch.equal(visited, whole) and torch.equal(drawn, torch.stack(frames, 1)[:, ::2])


def check_images(env: VectorEnv) -> None:
    """Some rows are drawn as among all, and states that differ are seen to differ."""
    start, goal = env.sample_start_goal(SEEDS)
    env.reset(SEEDS, start)
    images = env.render()
    assert torch.equal(env.render(torch.tensor([2, 0])), images[[2, 0]])
    assert torch.equal(env.render(), images), "drawing changes nothing"
    env.reset(SEEDS, goal)
    assert not torch.equal(env.render(), images), "images show the state"


def check_places(env: VectorEnv) -> None:
    """What is said to be somewhere in an image is seen there: it looks otherwise once the thing is elsewhere."""
    start, goal = env.sample_start_goal(SEEDS)
    for name, place in env.places(start).items():
        assert place.shape == (len(SEEDS), 2)
        moved = (env.places(goal)[name] - place).norm(dim=1) > 0.2
        assert moved.any(), f"no task moves the {name}"
        images = []
        for states in (start, goal):
            env.reset(SEEDS, states)
            images.append(env.render().float())
        differs = (images[0] - images[1]).abs().amax(1) > 20
        for row in moved.nonzero().squeeze(1).tolist():
            x, y = (place[row] * env.image_size).long().tolist()
            assert differs[row, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any(), f"the {name} is not there"


def check_success(env: VectorEnv) -> None:
    """A state has reached itself; of the drawn tasks not all are solved before they begin."""
    seeds = range(16)
    start, goal = env.sample_start_goal(seeds)
    same = env.success(goal, goal.clone())
    assert same.success.dtype == torch.bool and same.success.all() and (same.state_dist == 0).all()
    apart = env.success(start, goal)
    assert apart.success.shape == apart.state_dist.shape == (16,) and (apart.state_dist >= 0).all()
    assert not apart.success.all()


def check_restoring(env: VectorEnv) -> None:
    """An episode begins in any state, drawn or visited by another, to within the success region."""
    start, _ = env.sample_start_goal(SEEDS)
    assert env.success(env.reset(SEEDS, start), start).success.all()
    visited = env.step(actions_of(env))[:, -1]
    again = env.reset(SEEDS, visited)
    assert env.success(again, visited).success.all()


def check_layouts(env: VectorEnv) -> None:
    """The default layout is what an episode without one gets."""
    layouts = env.default_layouts(len(SEEDS))
    assert all(len(values) == len(SEEDS) for values in layouts.values())
    start, _ = env.sample_start_goal(SEEDS, layouts)
    plain, given = (simulate(env, SEEDS, start, actions_of(env), each).states for each in (None, layouts))
    assert torch.equal(plain, given)


def check_copies(env: VectorEnv) -> None:
    """A copy goes on with the same episodes by itself."""
    start, _ = env.sample_start_goal(SEEDS)
    env.reset(SEEDS, start)
    env.step(actions_of(env))
    other = copy.deepcopy(env)
    try:
        states = env.step(actions_of(env))
        assert torch.equal(other.step(actions_of(env)), states) and torch.equal(other.render(), env.render())
    finally:
        other.close()


def check_factors(env: VectorEnv) -> None:
    """A factor of variation changes what it says and nothing else, by the episode's seed alone."""
    seeds = [*SEEDS, *range(10, 22)]
    start, goal = env.sample_start_goal(seeds)
    layouts = env.default_layouts(len(seeds))
    ways = torch.randn(len(seeds), 1, env.env_action_dim, generator=torch.Generator().manual_seed(1))
    for place, end in zip(env.places(start).values(), env.places(goal).values(), strict=True):
        ways[:, 0, :2] = (end - place)[:, : env.env_action_dim]  # straight on: things lie in the way
        break
    ways[3] = ways[1]
    actions = (ways / ways.norm(dim=-1, keepdim=True)).expand(-1, 40, -1)
    plain = simulate(env, seeds, start, actions, layouts, frame_every=20)
    usual = {
        key: torch.from_numpy(value).expand(len(seeds), *value.shape)
        for key, value in usual_values(env.factors).items()
    }
    same = simulate(env, seeds, start, actions, {**usual, **layouts}, frame_every=20)
    assert torch.equal(same.states, plain.states) and torch.equal(same.frames, plain.frames), "usual values"
    for name, factor in env.factors.items():
        starts, varied = vary({name: factor}, seeds, [start, goal], layouts)
        assert env.misplaced(starts, varied) == [""] * len(seeds), f"{name}: places stay possible"
        assert all(torch.equal(values[1], values[3]) for values in (starts, *varied.values())), f"{name}: equal seeds"
        alone = vary({name: factor}, seeds[2:3], [start[2:3], goal[2:3]], env.default_layouts(1))
        assert torch.equal(alone[0], starts[2:3]), f"{name}: drawn from the episode alone"
        assert all(torch.equal(values, varied[key][2:3]) for key, values in alone[1].items()), name
        seen = simulate(env, seeds, starts, actions, varied, frame_every=20)
        again = simulate(env, seeds[2:3], starts[2:3], actions[2:3], alone[1], frame_every=20)
        assert torch.equal(again.states[0], seen.states[2]) and torch.equal(again.frames[0], seen.frames[2]), name
        assert torch.equal(starts, start) is ("start" not in factor.changes), f"{name}: starts"
        moves = "dynamics" in factor.changes or "start" in factor.changes
        assert torch.equal(seen.states, plain.states) is not moves, f"{name}: dynamics"
        looks = (seen.frames[:, 0] != plain.frames[:, 0]).flatten(1).any(1)
        expected = "images" in factor.changes or "start" in factor.changes
        assert (looks.float().mean() > 0.6) if expected else not looks.any(), f"{name}: images"


CHECKS = (
    check_sizes,
    check_seeds,
    check_blocks,
    check_images,
    check_places,
    check_success,
    check_restoring,
    check_layouts,
    check_copies,
    check_factors,
)
"""All that take an environment; ``check_determinism`` takes a function that makes one."""
