"""Videos of finished episodes: which, what is in a frame, and that what is imagined again is what was imagined."""

import av
import numpy as np
import pytest
import torch

from envs.wall.vector_env import WallVectorEnv
from experiments.stages import composed
from plan import plan
from planning import videos
from planning.config import PlanConfig
from planning.episode_record import EpisodeRecord
from planning.history import kept_of_execution
from planning.videos import FRAMES_PER_SECOND, REST, chosen_episodes
from tests.builders import near, wall_model_directory
from utils.pictures import GAP, HEADER, SIDE, enlarge, to_uint8

SOLVED = torch.tensor([True, True, False, True, False, False, True])


CHOSEN = {0: [], 1: [2], 2: [0, 2], 5: [0, 1, 2, 4, 5], 7: list(range(7)), 9: list(range(7))}


@pytest.mark.parametrize(("count", "chosen"), CHOSEN.items())
def test_the_first_failures_and_the_first_successes_are_shown(count, chosen):
    assert chosen_episodes(SOLVED, count) == chosen


@pytest.mark.parametrize("solved", [True, False])
def test_one_kind_fills_the_places_of_the_other(solved):
    assert chosen_episodes(torch.tensor([solved] * 4), 3) == [0, 1, 2]


def evaluated(model, folder, *more):
    few = ["n_evals=3", "device=cpu", "num_threads=1", "planner.max_iter=3", "planner.n_taken_actions=2"]
    few += ["planner.sub_planner.horizon=3", "planner.sub_planner.opt_steps=2"]
    return plan(composed(PlanConfig, "plan_wall", [*few, f"ckpt_path={model}", f"run_dir={folder}", *more]))


@pytest.mark.parametrize("more", [[], ["planner.adapt={lr: 0.01}"]], ids=["the model", "a model that learns"])
def test_what_is_imagined_again_is_what_was_imagined(tmp_path, monkeypatch, more):
    """With a history of three frames, of which two are new in every iteration."""
    model, then, again = wall_model_directory(tmp_path / "model", num_hist=3), [], []

    def kept(imagined, *rest):
        then.append(imagined)
        return kept_of_execution(imagined, *rest)

    def decoded(model, latent):
        again.append(latent)
        return np.zeros((latent.num_frames, 8, 8, 3), np.uint8)

    monkeypatch.setattr("planning.mpc.kept_of_execution", kept)
    monkeypatch.setattr(videos, "decoded", decoded)
    monkeypatch.setattr(videos, "AT_A_TIME", 3)  # iteration by iteration
    metrics = evaluated(model, tmp_path / "run", "n_plot_samples=3", *more)
    assert metrics["solved_at"] == [0, 0, 0] and len(again) == 9
    for iteration, latents in enumerate(then):
        for row in range(3):
            found = again[3 * iteration + row]
            near(found.visual[0], latents.visual[row, 1:], 1e-3)
            near(found.proprio[0], latents.proprio[row, 1:], 1e-3)


def test_a_video_shows_every_raw_step(tmp_path, monkeypatch):
    """What the simulator shows above, what was imagined for the end of the last block below, the goal at the right."""
    written = {}
    monkeypatch.setattr(videos, "write_mp4", lambda path, frames, *more: written.update({path.name: (frames, *more)}))
    evaluated(wall_model_directory(tmp_path / "model"), tmp_path / "run", "n_plot_samples=1")
    [(name, (frames, rate, _))] = written.items()
    record = EpisodeRecord.read(tmp_path / "run" / "episodes.npz")
    assert name == "output_final_0_failure.mp4" and rate == FRAMES_PER_SECOND >= 10
    assert len(frames) == 3 * 2 * 5 + 1 + REST
    env = WallVectorEnv(65)
    top, below = 2 * HEADER, 2 * HEADER + SIDE + GAP
    for step in (0, 7, 30):
        env.reset([1], torch.from_numpy(record.states[:1, step]))
        assert np.array_equal(frames[step][top : top + SIDE, :SIDE], enlarge(to_uint8(env.render())[0]))
    imagined = [frame[below:, :SIDE] for frame in frames]
    assert all(np.array_equal(imagined[step], imagined[step - step % 5]) for step in range(30))
    assert not np.array_equal(imagined[5], imagined[4]) and not np.array_equal(imagined[30], imagined[29])
    assert all(np.array_equal(frame[top:, SIDE:], frames[0][top:, SIDE:]) for frame in frames), "the goal stays"
    assert not np.array_equal(frames[0][:HEADER], frames[1][:HEADER]), "the step and the distance are said"


def test_a_written_video_plays_at_its_rate(tmp_path):
    evaluated(wall_model_directory(tmp_path / "model"), tmp_path / "run", "n_plot_samples=1", "planner.max_iter=1")
    with av.open(str(tmp_path / "run" / "output_final_0_failure.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == FRAMES_PER_SECOND
        assert len(list(container.decode(stream))) == 11 + REST
