"""Every format of the config folder keeps the contract of ``datasets.trajectories.Trajectories``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.utils import get_class, instantiate

from datasets.collect import collections, make_env
from datasets.collecting.config import CollectConfig
from datasets.converting.conversion import TARGETS, Conversion
from datasets.files import DatasetError
from envs.opengl import OpenGLError
from tests.contracts.dataset_contract import CHECKS, check_replay
from tests.contracts.options import names
from utils.schema import Component, parsed

SIZES = ("n_rollout=4", "num_steps=14", "image_size=32")


@pytest.fixture(scope="module")
def settings(dataset_option, composing, pytestconfig):
    """The config of a collection in this format: of the environment of its name, of the folder's, or of the Wall."""
    known = names(pytestconfig, "env")
    env = dataset_option if dataset_option in known else "wall" if "wall" in known else [*known, "wall"][0]
    return composing(f"env={env}", f"dataset={dataset_option}", *SIZES, name="collect")


@pytest.fixture(scope="module")
def data(settings, dataset_option, composing, tmp_path_factory):
    """Data that were collected in the format or converted to it, or else those that the settings name."""
    reader, folder = dict(settings["env"]["dataset"]), str(tmp_path_factory.mktemp("data"))
    if dataset_option in TARGETS and get_class(reader["_target_"]).writer is None:
        reader["data_path"] = converted(dataset_option, Path(folder), composing)
    elif get_class(reader["_target_"]).writer is not None:
        counts = {"n_val": 2} if get_class(reader["_target_"]).writer.subsets else {}
        try:
            for collection in collections(parsed(CollectConfig, {**settings, **counts, "data_path": str(folder)})):
                collection.run(num_workers=1)
        except OpenGLError as error:
            pytest.skip(str(error))
        reader["data_path"] = folder
    try:
        return instantiate(reader)
    except DatasetError as error:
        pytest.skip(f"no data to read (--setting env.dataset.data_path=...): {error}")


def converted(option, folder, composing):
    """Data of the Wall, converted to a format; skips where its package is missing."""
    settings = composing("env=wall", *SIZES, name="collect")
    for collection in collections(parsed(CollectConfig, {**settings, "data_path": str(folder / "wall")})):
        collection.run(num_workers=1)
    data = instantiate({**settings["env"]["dataset"], "data_path": str(folder / "wall")})
    try:
        return str(Conversion(data, option, folder / f"made{TARGETS[option].suffix}").run())
    except DatasetError as error:
        if "is not installed" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_reader_keeps_its_contract(check, data):
    check(data)


def test_what_was_recorded_is_played_again(data, settings):
    env = make_env(Component(settings["env"]["simulator"]), data.frame_size)
    try:
        if env.name != data.name:
            pytest.skip(f"these are data of {data.name} (--setting env={data.name})")
        check_replay(data, env)
    finally:
        env.close()
