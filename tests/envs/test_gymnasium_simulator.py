"""Environments of Gymnasium as batches that plans are made in."""

import numpy as np
import pytest
import torch

from datasets.collect import collections
from datasets.collecting.config import CollectConfig
from envs.base import simulate
from envs.process_vector import ProcessVectorEnv
from planning.config import PlanConfig
from planning.prepare_evaluation import prepare_evaluation
from tests.contracts.environment_contract import CHECKS, check_determinism
from tests.envs import toy_gymnasium  # noqa: F401  (registers them)
from tests.training.tiny import build, composed
from utils.schema import parsed

OWN = "tests.envs.toy_gymnasium:WalkSimulator"
OURS = "envs.gymnasium_simulator:GymnasiumSimulator"


def make(id, simulator=OURS, num_workers=0, **options):
    return ProcessVectorEnv(simulator, 32, num_workers, id=id, **options)


@pytest.mark.parametrize(
    ("id", "simulator"),
    [("Walk-v0", OWN), ("KnownWalk-v0", OURS), ("MountainCarContinuous-v0", "tests.envs.toy_gymnasium:Car")],
)
def test_the_contract_is_kept_however_the_state_is_read(id, simulator):
    env = make(id, simulator)
    for check in CHECKS:
        check(env)
    env.close()
    check_determinism(lambda: make(id, simulator))


def test_worker_processes_play_the_same():
    start, _ = (alone := make("Walk-v0", OWN)).sample_start_goal(range(3))
    actions = torch.rand(3, 4, 2) - 0.5
    workers = make("Walk-v0", OWN, num_workers=2)
    found, expected = (simulate(env, range(3), start, actions, frame_every=2) for env in (workers, alone))
    assert torch.equal(found.states, expected.states) and torch.equal(found.frames, expected.frames)
    workers.close()


def test_actions_are_cut_off_at_the_limits_of_the_space():
    env = make("KnownWalk-v0")
    env.reset([0], torch.zeros(1, 2, dtype=torch.float64))
    assert torch.allclose(env.step(torch.full((1, 1, 2), 5.0)), torch.tensor(0.2, dtype=torch.float64))
    with pytest.raises(ValueError, match="did the planner diverge"):
        env.step(torch.full((1, 1, 2), np.nan))


def test_entries_of_the_state_are_the_proprio_values():
    env = make("Pendulum-v1", proprio=[1])
    assert env.proprio_dim == 1 and env.proprio(torch.tensor([[2.0, 3.0]])).tolist() == [[3.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": "Pendulum-v0"}, r"env\.id=Pendulum-v0: Environment version v0"),
        ({"id": "DiscreteWalk-v0", "simulator": OWN}, r"takes actions of Discrete\(2\); planning needs a Box"),
        ({"id": "Walk-v0"}, r"env\.id=Walk-v0 has neither an array `state` nor get_state.*write a subclass"),
        ({"id": "os:Walk-v0"}, r"env\.id=os:Walk-v0: import that module in a simulator of your own"),
        ({"id": "Pendulum-v1", "state_dim": 3}, r"env\.state_dim=3: Pendulum-v1 has 2; set that"),
        ({"id": "Pendulum-v1", "proprio_dim": 2, "proprio": [1]}, r"env\.proprio_dim=2: Pendulum-v1 has 1"),
        ({"id": "Pendulum-v1", "env_action_dim": 2}, r"env\.env_action_dim=2: Pendulum-v1 has 1"),
    ],
)
def test_what_an_environment_lacks_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_states_and_layouts_that_do_not_fit_are_refused():
    env = make("KnownWalk-v0")
    with pytest.raises(ValueError, match="a state must be 2 finite numbers"):
        env.reset([0], torch.full((1, 2), torch.nan))
    with pytest.raises(ValueError, match="unknown layout keys"):
        env.reset([0], torch.zeros(1, 2), {"door": torch.zeros(1, 1)})


def test_the_pendulum_is_collected_trained_on_and_planned_in(tmp_path):
    """The whole way with ``env=gymnasium``, as its file stands."""
    data = str(tmp_path / "data")
    sizes = ("n_rollout=4", "num_steps=40", "image_size=65")
    collected = parsed(CollectConfig, composed("env=gymnasium", *sizes, name="collect", data_path=data))
    for collection in collections(collected):
        collection.run(num_workers=1)
    common = ("env=gymnasium", f"env.dataset.data_path={data}", "env.simulator.num_workers=0", "num_hist=1")
    brief = ("training.max_batches=2", "training.epochs=1")
    build(tmp_path / "base", *common, *brief).fit()
    online = ("method=online", "replay_buffer_frequency=1", "method.planner.opt_steps=2")
    trainer = build(tmp_path / "online", *common, *brief, *online, f"ckpt_path={tmp_path / 'base'}")
    trainer.fit()
    assert len(trainer.method.replay) > 0
    plan = ("n_evals=2", "goal_source=random_state", "planner.max_iter=1", "planner.sub_planner.opt_steps=2")
    config = composed(
        *common[:3], *plan, name="plan", run_dir=str(tmp_path / "plan"), ckpt_path=str(tmp_path / "online")
    )
    found = prepare_evaluation(parsed(PlanConfig, config), torch.device("cpu")).run()
    assert found["iterations"] == 1 and 0 <= found["success_rate"] <= 1
