import pytest

from launch.sweep_names import count_members, member_name, name_sweep, runs_below, sweep_folder


def named(*argv):
    return sweep_folder(name_sweep(["-m", *argv], "outputs/sweeps"))


def test_the_same_command_has_the_same_folder_whatever_runs_it():
    folder = named("planner=mpc_gd,mpc_cem", "seed=1,2", "ckpt_path=model")
    assert folder.parent.as_posix() == "outputs/sweeps"
    assert folder.name.startswith("planner-seed-")
    assert folder == named("seed=1,2", "ckpt_path=model", "planner=mpc_gd,mpc_cem")
    assert folder == named("planner=mpc_gd,mpc_cem", "seed=1,2", "ckpt_path=model", "hydra/launcher=joblib")
    assert folder != named("planner=mpc_gd,mpc_cem", "seed=1,2", "ckpt_path=other")


def test_the_users_folder_is_kept_and_a_single_run_gets_none():
    assert named("seed=1,2", "hydra.sweep.dir='my folder'").as_posix() == "my folder"
    assert name_sweep(["seed=1"], "outputs/sweeps") == ["seed=1"]


@pytest.mark.parametrize(
    ("argv", "count"),
    [(["seed=1,2", "n=range(0,3)"], 6), (["seed=1"], 1), (["lr=interval(0,1)"], None), (["seed=choice(1,2,3)"], 3)],
)
def test_members_are_counted(argv, count):
    assert count_members(["-m", *argv]) == count


def test_members_are_named_after_what_is_swept_and_never_the_same():
    assert member_name("planner=mpc_gd,seed=1") == "planner-mpc_gd+seed-1"
    assert member_name("") == "single"
    odd = {member_name(text) for text in ("path=a/b", "path=a_b", "path=a b", f"path={'x' * 200}", f"path={'x' * 201}")}
    assert len(odd) == 5
    assert all("/" not in name and len(name) < 200 for name in odd)


def test_runs_from_a_file_lie_in_a_folder_of_its_name_beside_it(tmp_path):
    (tmp_path / "dino_wm_wall.pth.tar").touch()
    assert runs_below(str(tmp_path / "dino_wm_wall.pth.tar")) == str(tmp_path / "dino_wm_wall")
    assert runs_below(str(tmp_path)) == str(tmp_path)
