"""What a user may write, and what is refused before anything runs."""

import pytest

from experiments.config import StudyConfig
from experiments.preflight import check
from experiments.shorthand import names_of, study_config
from experiments.words import in_hydras_words
from tests.experiments import tiny
from utils.schema import SettingError

SHORT = ["training.epochs=1", "training.max_batches=3"]
PLAIN = {"overrides": ["experiment=wall_state", SHORT]}
MORE = {"base": "plain", "overrides": ["experiment=wall_state", SHORT]}
TRAINED = {
    "models": {"plain": PLAIN, "plain + more": MORE},
    "planners": {"few": ["planner=gd"], "fewer": ["planner=gd_lbfgs"]},
    "cells": {
        "all": {"models": ["plain", "plain + more"], "planners": ["few"]},
        "short": {"models": ["plain"], "planners": ["fewer"], "n_evals": 2},
    },
}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["x/wall", "x/wall/online/2026-11-30/12-00-00"], ["wall", "wall/online"]),
        (["x/wall/online/2026-11-30/12-00-00", "x/wall/adversarial/2026-11-30/12-00-00"], ["online", "adversarial"]),
        (["a/2026-11-30/12-00-00", "a/2026-11-30/13-00-00"], ["12-00-00", "13-00-00"]),
        (["x/a/", "y/a"], ["x/a", "y/a"]),
        (["x/online/2026-11-30/12-00-00"], ["online"]),
    ],
)
def test_models_are_named_by_what_tells_their_folders_apart(paths, names):
    assert names_of(paths) == names


def test_lists_become_names_with_settings():
    config = tiny.study("x", models=["x/a", "x/b"], planners=["mpc_cem"], distances=[5, 10]).config
    assert [model.ckpt_path for model in config.models.values()] == [["x/a"], ["x/b"]] and list(config.models) == [
        "a",
        "b",
    ]
    assert config.all_planners() == {"mpc_cem": ["planner=mpc_cem"]}
    assert config.goals == {f"goal_H {h}": ["goal_source=dset", f"goal_H={h}"] for h in (5, 10)}
    assert list(tiny.study("x", planners=None).config.planners) == ["mpc_gd_lbfgs", "mpc_cem"]


def test_factors_become_goals_beside_those_without_variation():
    config = tiny.study("x", vary=["colour", ["size", "start"]]).config
    assert config.goals == {"no variation": [], "colour": ["vary=[colour]"], "size + start": ["vary=[size,start]"]}
    assert config.controls == {"colour": "no variation", "size + start": "no variation"}
    config = tiny.study("x", vary="door", distances=[5]).config
    assert config.goals["goal_H 5, door"] == ["goal_source=dset", "goal_H=5", "vary=[door]"]
    assert config.controls == {"goal_H 5, door": "goal_H 5"}
    assert {"door", "colour.agent"} < {*tiny.study("x", vary="each").config.controls}


def test_a_comparison_has_a_folder_of_its_own_that_another_planner_shares(tmp_path):
    tiny.write_models(tmp_path)
    one, planner, model = (
        tiny.study(tmp_path, folder=None, **changed).folder
        for changed in ({}, {"planners": ["gd"]}, {"models": [str(tmp_path / "a")]})
    )
    assert one == planner != model and one.parent.name == "experiments_outputs"


def test_the_environment_is_that_of_the_checkpoints(tmp_path):
    tiny.write_models(tmp_path)
    assert tiny.study(tmp_path, environment=None).config.env == "wall"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": None}, "models: name at least one"),
        ({"models": ["x/a", "x/a/"]}, "models: x/a/ is there twice"),
        ({"models": {"a": {"ckpt_path": "x", "overrides": []}}}, "models.a: give either ckpt_path, or overrides"),
        (
            {"models": {"a": ["x", "y"], "b": ["x", "y", "z"]}},
            "models: a has 2, b has 3 training seeds; each needs as many",
        ),
        ({"distances": [0]}, r"distances=\[0\] must be numbers of blocks"),
        ({"distances": [5], "goals": {"a": []}}, "distances stand for goals: set one of the two"),
        ({"budgets": {"models": ["c"], "planners": {}}}, "budgets.models: there is no 'c'; there are a, b"),
        ({**TRAINED, "compare": [["plain", "plane"]]}, "compare: there is no 'plane'; there are plain, plain \\+ more"),
        ({**TRAINED, "compare": [["plain"]]}, "compare must be pairs of names, got \\['plain'\\]"),
        ({**TRAINED, "compare_planners": [["few", "x"]]}, "compare_planners: there is no 'x'"),
        ({**TRAINED, "gap_planner": "cem"}, "gap_planner: there is no 'cem'; there are few, fewer"),
        ({**TRAINED, "cells": {"a": {"models": ["plain"], "planners": ["x"]}}}, "cells.a.planners: there is no 'x'"),
        ({**TRAINED, "models": {"a": {"base": "a", "overrides": []}}, "cells": None}, "models.a.base: there is no 'a'"),
        ({**TRAINED, "seeds": []}, r"seeds must be at least one, each once, got \[\]"),
        ({**TRAINED, "seeds": [1, 1]}, r"seeds must be at least one, each once, got \[1, 1\]"),
        (
            {**TRAINED, "models": {"plain": {"base": "plain + more", "overrides": []}, "plain + more": MORE}},
            r"models.plain.base: plain <- plain \+ more <- plain is a circle; train one from scratch",
        ),
        (
            {
                **TRAINED,
                "cells": TRAINED["cells"] | {"b": {"models": ["plain + more"], "planners": ["few"], "n_evals": 3}},
            },
            "cells.b.n_evals: 'few' has 3 episodes here and 4 in other cells; give one of them another name",
        ),
        (
            {**TRAINED, "models": TRAINED["models"] | {"plain - more": MORE}},
            r"models: 'plain \+ more' and 'plain - more' would use the same files; rename one",
        ),
        ({"planners": {"a | b": ["planner=gd"]}}, r"planners: 'a \| b' must not have a bar"),
        ({**TRAINED, "cells": {"a": {"model": ["plain"]}}}, "cells.a.model: there is no such setting; did you mean"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(changed, message):
    with pytest.raises((ValueError, SettingError), match=message):
        tiny.study("x", **changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": {"c": "nowhere"}}, "models.c: there is no nowhere"),
        ({"planners": ["gdd"]}, "planners.gdd: planner=gdd: planner has no option gdd; did you mean gd"),
        ({"planners": {"gd": ["planner.lrr=1"]}}, "planners.gd: planner.lrr=1: there is no such setting"),
        ({"evaluate": ["objectve=all"]}, "planners.gd: objectve=all: there is no such setting; did you mean objective"),
        ({"environment": "pusht"}, "env=pusht was asked for, but .* was trained on env=wall"),
    ],
)
def test_the_same_of_what_only_files_and_options_can_tell(changed, message, tmp_path):
    tiny.write_models(tmp_path)
    with pytest.raises(ValueError, match=message):
        check(tiny.study(tmp_path, **changed))


def test_models_of_other_frameskips_do_not_meet_goals_that_are_so_many_blocks_away(tmp_path, caplog):
    tiny.write_models(tmp_path)
    file = tmp_path / "b" / "hydra.yaml"
    assert "frameskip: 5" in file.read_text()
    file.write_text(file.read_text().replace("frameskip: 5", "frameskip: 2"))
    with pytest.raises(ValueError, match="a has frameskip=5, b has frameskip=2; with goal_source=dset they would meet"):
        check(tiny.study(tmp_path, distances=[5]))
    check(tiny.study(tmp_path, evaluate=["goal_source=random_state"]))
    assert "b has frameskip=2: with as many blocks they may execute different numbers of raw steps" in caplog.text


def test_the_first_word_names_a_study():
    assert in_hydras_words(["demo", "env=pusht", "n_evals=5"]) == ["--config-name", "demo_pusht", "n_evals=5"]
    assert in_hydras_words(["results"]) == ["--config-name", "results_wall"]
    assert in_hydras_words(["compare", "models=[~/a b,hf://c/d]"])[2:] == ["models=['~/a b','hf://c/d']"]
    assert in_hydras_words(["compare", "env=wall"]) == ["--config-name", "compare", "environment=wall"]
    assert in_hydras_words(["--config-name", "recipe_wall", "seeds=[1]"]) == [
        "--config-name",
        "recipe_wall",
        "seeds=[1]",
    ]
    with pytest.raises(ValueError, match="compar: there is no such study; did you mean compare"):
        in_hydras_words(["compar"])


def test_a_study_of_a_users_own_builds_on_one_of_ours(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [compare, _self_]")
    assert in_hydras_words(["mine", "--config-dir", str(tmp_path)])[:2] == ["--config-name", "mine"]


def test_a_study_may_take_a_model_out_of_the_one_that_it_builds_on():
    raw = {"models": {"a": None, "b": "x"}, "environment": "wall", "folder": "f"}
    base = {name: getattr(tiny.study("x").config, name) for name in ("seeds", "goals_seed", "n_evals", "gap_tasks")}
    base |= {"publish": False, "num_workers": None, "evaluate": [], "floors": True, "ceiling": True, "why_evals": 0}
    base |= {"inspect_evals": 0}
    config = study_config(raw | base | {"ceiling_evals": 2}, "mine")
    assert isinstance(config, StudyConfig) and list(config.models) == ["b"]
