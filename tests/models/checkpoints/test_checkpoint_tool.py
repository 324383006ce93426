"""``python -m models.checkpoint inspect|convert``."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from models.checkpoints.command import main
from models.checkpoints.convert import convert
from models.checkpoints.dino_wm_copy import write_copy
from models.checkpoints.native import read_checkpoint, read_weights_file, write_model_config
from models.checkpoints.own_file import write_checkpoint, write_tensors
from models.checkpoints.stored_architecture import stored_architecture
from models.checkpoints.summary import summarise
from models.foreign.dino_wm import CheckpointError, read_pickled_checkpoint
from models.networks.proprio import ProprioceptiveEmbedding
from models.networks.vit import ViTPredictor

pytestmark = pytest.mark.usefixtures("dino_wm_names")

SIZES = {"depth": 2, "heads": 2, "mlp_dim": 8, "dim_head": 4}
CONFIG = {
    "env": {"name": "wall"},
    "num_hist": 1,
    "num_pred": 1,
    "frameskip": 5,
    "img_size": 32,
    "concat_dim": 1,
    "action_emb_dim": 2,
    "proprio_emb_dim": 2,
    "num_action_repeat": 1,
    "num_proprio_repeat": 1,
    "has_predictor": True,
    "has_decoder": False,
    "normalize_action": False,
    "encoder": {"_target_": "models.dino.DinoV2Encoder", "name": "dinov2_vits14", "feature_key": "x_norm_patchtokens"},
    "predictor": {"_target_": "models.vit.ViTPredictor", **SIZES},
}


def modules(seed: int = 0) -> dict:
    torch.manual_seed(seed)
    predictor = ViTPredictor(4, 1, 8, **SIZES)
    predictor.transformer.layers[0][0].register_buffer("bias", torch.ones(1, 1, 4, 4))  # the mask, as in DINO-WM
    optimizer = torch.optim.AdamW(predictor.parameters())
    return {
        "epoch": 7,
        "predictor": predictor,
        "action_encoder": ProprioceptiveEmbedding(10, 2),
        "proprio_encoder": ProprioceptiveEmbedding(2, 2),
        "predictor_optimizer": optimizer,
    }


@pytest.fixture
def original(tmp_path) -> Path:
    """A model directory as DINO-WM's trainer leaves it."""
    folder = tmp_path / "wall_single"
    (folder / "checkpoints").mkdir(parents=True)
    torch.save(modules(), folder / "checkpoints/model_latest.pth")
    OmegaConf.save(OmegaConf.create(CONFIG), folder / "hydra.yaml")
    return folder


def weights_of(folder: Path, suffix: str = "pth") -> Path:
    return folder / f"checkpoints/model_latest.{suffix}"


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_summary_counts_and_builds_nothing(original, monkeypatch):
    monkeypatch.setattr("torch.nn.Module.__init__", lambda *_: pytest.fail("a module was built"))
    monkeypatch.setattr("utils.reading.torch_archive.TorchArchive.storage", lambda *_: pytest.fail("a tensor was read"))
    summary = summarise(weights_of(original))
    predictor = summary.parts["predictor"]
    assert (summary.epoch, summary.ignored) == (7, ["predictor_optimizer"])
    assert predictor.kind == "models.vit.ViTPredictor"
    assert predictor.tensors["transformer.layers.1.0.to_qkv.weight"].shape == (24, 8)
    assert predictor.count(buffers=True) == 16
    assert summary.parts["action_encoder"].count() == 22
    assert summary.config["predictor"]["dim_head"] == 4
    assert summary.config["frameskip"] == 5


def test_parameters_are_counted_as_torch_counts_them(original):
    expected = sum(parameter.numel() for parameter in modules()["predictor"].parameters())
    assert summarise(weights_of(original)).parts["predictor"].count() == expected


def test_inspect_prints_a_page_and_json(original, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(original)])
    page = capsys.readouterr().out
    assert ended.value.code == 0
    assert "transformer.layers.{0,1}.0.to_qkv.weight (24, 8)" in page
    with pytest.raises(SystemExit):
        main(["inspect", str(weights_of(original)), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["parts"]["predictor"]["tensors"]["pos_embedding"] == {"shape": [1, 4, 8], "dtype": "float32"}


def test_a_config_that_does_not_fit_is_shown_as_a_problem(original, capsys):
    OmegaConf.save(OmegaConf.create(CONFIG | {"frameskip": 3}), original / "hydra.yaml")
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(original)])
    assert ended.value.code == 1
    assert "frameskip: 3, but the checkpoint beside it was built with 5" in capsys.readouterr().out


def test_a_plain_state_dict_is_recognised(tmp_path):
    torch.save({"cls_token": torch.zeros(1, 1, 384), "norm.weight": torch.zeros(384)}, tmp_path / "w.pth")
    summary = summarise(tmp_path / "w.pth")
    assert (summary.layout, summary.parts["tensors"].kind) == ("state dict", "dinov2_vits14")


@pytest.mark.parametrize("command", [["inspect"], ["convert", "out"]])
def test_a_file_that_is_no_checkpoint_gives_one_line(tmp_path, command):
    path = tmp_path / "model_1.pth"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(SystemExit) as ended:
        main([command[0], str(path), *command[1:]])
    assert "\n" not in ended.value.code
    assert str(path) in ended.value.code


def test_the_command_line_refuses_a_hostile_file(golden, forked):
    process = forked("-m", "models.checkpoint", "inspect", golden("malicious_os_system.pth"))
    _, errors = process.communicate(60)
    assert process.returncode == 1
    assert "asks for posix.system" in errors
    assert "Traceback" not in errors


def test_our_layout_holds_the_same_numbers(original, tmp_path):
    convert(weights_of(original), tmp_path / "ours")
    before, after = read_checkpoint(original), read_checkpoint(tmp_path / "ours")
    assert after.path.suffix == ".safetensors"
    assert after.epoch == 7
    assert set(before.tensors) - set(after.tensors) == {"predictor.transformer.layers.0.0.bias"}  # the mask
    assert all(torch.equal(tensor, before.tensors[name]) for name, tensor in after.tensors.items())
    assert after.about["parent"] == str(weights_of(original))
    assert after.config["normalize_action"] is False
    assert after.config["predictor"]["dim_head"] == 4
    assert after.config["env"] == {"name": "wall"}


@pytest.mark.parametrize("out", ["ours", "ours.safetensors", "plain.pth"])
def test_converting_again_changes_nothing(original, tmp_path, out):
    assert "wrote" in convert(weights_of(original), tmp_path / out)
    before = files_below(tmp_path)
    assert "with the same content" in convert(weights_of(original), tmp_path / out)
    assert files_below(tmp_path) == before


def test_the_same_file_under_another_path_is_the_same(original, tmp_path, monkeypatch):
    convert(weights_of(original), tmp_path / "ours")
    monkeypatch.chdir(tmp_path)
    done = convert(Path("wall_single/../wall_single/checkpoints/model_latest.pth"), Path("ours"))
    assert done.count("with the same content") == 2


def test_others_may_read_what_was_converted(original, tmp_path):
    convert(weights_of(original), tmp_path / "ours")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "ours").rglob("*") if path.is_file()}
    (tmp_path / "ordinary").touch()
    assert modes == {(tmp_path / "ordinary").stat().st_mode & 0o777}


def test_a_failing_conversion_leaves_nothing(original, tmp_path, monkeypatch):
    def no_room(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("models.checkpoints.own_file.write_safetensors", no_room)
    with pytest.raises(OSError, match="disk full"):
        convert(weights_of(original), tmp_path / "ours")
    assert not files_below(tmp_path / "ours")


def test_without_hard_links_nothing_is_overwritten_either(original, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("os.link", refuse)
    convert(weights_of(original), tmp_path / "ours.safetensors")
    assert read_weights_file(tmp_path / "ours.safetensors").epoch == 7


def test_what_is_converted_already_is_copied_byte_for_byte(original, tmp_path):
    convert(weights_of(original), tmp_path / "first")
    convert(weights_of(tmp_path / "first", "safetensors"), tmp_path / "second")
    assert files_below(tmp_path / "first") == files_below(tmp_path / "second")


@pytest.mark.parametrize("out", ["ours", "ours.safetensors", "plain.pth"])
def test_nothing_is_overwritten(original, tmp_path, out):
    convert(weights_of(original), tmp_path / out)
    torch.save(modules(seed=1), weights_of(original))
    before = files_below(tmp_path)
    with pytest.raises(CheckpointError, match="exists and holds something else"):
        convert(weights_of(original), tmp_path / out)
    assert files_below(tmp_path) == before


def test_a_plain_state_dict_needs_nothing_of_anybody(original, tmp_path):
    convert(weights_of(original), tmp_path / "ours")
    convert(weights_of(tmp_path / "ours", "safetensors"), tmp_path / "plain.pth")
    plain = torch.load(tmp_path / "plain.pth", weights_only=True)
    assert plain["epoch"] == 7
    expected = modules()["action_encoder"].state_dict()
    assert plain["action_encoder"].keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in plain["action_encoder"].items())
    read_back = read_weights_file(tmp_path / "plain.pth")
    ours = read_weights_file(weights_of(tmp_path / "ours", "safetensors"))
    assert read_back.tensors.keys() == ours.tensors.keys()


def test_a_plain_state_dict_takes_the_place_of_the_original(original, tmp_path):
    convert(weights_of(original), tmp_path / "plain.pth")
    expected = stored_architecture(read_checkpoint(original))
    shutil.move(tmp_path / "plain.pth", weights_of(original))
    assert stored_architecture(read_checkpoint(original)) == expected


@pytest.mark.parametrize(
    ("out", "options", "words"),
    [
        ("folder", {"to": "state-dict"}, r"needs a file whose name ends in \.pth"),
        ("a.safetensors", {"to": "dino-wm"}, r"needs a file whose name ends in \.pth, or a folder"),
        ("a.pt", {}, r"needs a file whose name ends in \.safetensors"),
        ("a.pth", {"like": Path("b.pth")}, "--like b.pth has no effect"),
    ],
)
def test_contradictory_wishes_are_refused(original, tmp_path, out, options, words):
    with pytest.raises(CheckpointError, match=words):
        convert(weights_of(original), tmp_path / out, **options)


def finetuned(original: Path, folder: Path) -> Path:
    """A model of ours that started from ``original``, with other weights."""
    convert(weights_of(original), folder / "base")
    start = read_checkpoint(folder / "base")
    torch.manual_seed(5)
    tensors = {name: torch.randn_like(tensor) for name, tensor in start.tensors.items()}

    class Model(torch.nn.Module):
        def state_dict(self, *_, **__):
            return tensors

    about = {"parent": str(start.path), "parent_sha256": summarise(start.path).sha256}
    write_checkpoint(weights_of(folder / "run", "safetensors"), Model(), 9, about, with_encoder=True)
    write_model_config(folder / "run", start.config)
    return weights_of(folder / "run", "safetensors")


def test_the_earlier_release_gets_its_own_objects_with_our_weights(original, tmp_path):
    """What it does is this: load everything, classes and all, and use the modules."""
    child = finetuned(original, tmp_path)
    convert(child, tmp_path / "old", to="dino-wm")
    loaded = torch.load(weights_of(tmp_path / "old"), weights_only=False)
    ours = read_weights_file(child).tensors
    expected = modules()["predictor"]
    expected.load_state_dict({n.removeprefix("predictor."): t for n, t in ours.items()}, strict=False)
    tokens = torch.randn(2, 4, 8)
    assert torch.equal(loaded["predictor"].eval()(tokens), expected.eval()(tokens))
    assert torch.equal(loaded["predictor"].transformer.layers[0][0].bias, torch.ones(1, 1, 4, 4))
    assert (tmp_path / "old/hydra.yaml").read_bytes() == (original / "hydra.yaml").read_bytes()
    assert (
        files_below(original)["checkpoints/model_latest.pth"]
        != files_below(tmp_path / "old")["checkpoints/model_latest.pth"]
    )


def test_a_copy_names_no_more_than_the_original(original, tmp_path):
    convert(finetuned(original, tmp_path), tmp_path / "old.pth", to="dino-wm")
    assert read_pickled_checkpoint(tmp_path / "old.pth").classes == read_checkpoint(original).about["classes"]
    torch.load(tmp_path / "old.pth", weights_only=False, mmap=True)  # aligned as torch wants it


def test_an_original_that_changed_is_not_guessed(original, tmp_path):
    child = finetuned(original, tmp_path)
    shutil.move(original, tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="is not here; name the original with --like"):
        convert(child, tmp_path / "old.pth", to="dino-wm")
    convert(child, tmp_path / "old.pth", to="dino-wm", like=weights_of(tmp_path / "elsewhere"))
    original.mkdir()
    torch.save(modules(seed=2), original / "wrong.pth")
    (original / "checkpoints").mkdir()
    torch.save(modules(seed=2), weights_of(original))
    with pytest.raises(CheckpointError, match="has changed since"):
        convert(child, tmp_path / "again.pth", to="dino-wm")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"predictor.pos_embedding": None}, "predictor.pos_embedding is missing"),
        ({"predictor.extra": torch.ones(1)}, "predictor.extra has no place in it"),
        ({"predictor.pos_embedding": torch.ones(1, 4, 9)}, r"has shape \(1, 4, 9\) instead of \(1, 4, 8\)"),
    ],
)
def test_weights_that_do_not_fit_an_original_are_listed(original, tmp_path, change, words):
    tensors = read_weights_file(weights_of(original)).tensors | change
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(CheckpointError, match=words):
        write_copy(weights_of(original), tensors, tmp_path / "old.pth")
    assert not (tmp_path / "old.pth").exists()


def test_a_model_from_scratch_has_no_original(tmp_path, original):
    convert(weights_of(original), tmp_path / "ours.safetensors")
    alone = tmp_path / "alone.safetensors"
    tensors = read_weights_file(tmp_path / "ours.safetensors").tensors
    write_tensors(alone, tensors, 1, {"parent": None, "parent_sha256": None})
    with pytest.raises(CheckpointError, match="trained from scratch"):
        convert(alone, tmp_path / "old.pth", to="dino-wm")
