import hashlib
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.foreign import dinov2_weights
from models.foreign.dinov2_names import to_transformers
from models.foreign.dinov2_weights import WeightsError, WeightsNotFoundError, check_official, find_weights, read_weights
from models.networks.dinov2_vit import DinoVisionTransformer
from utils.files import sha256


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    return DinoVisionTransformer(16, 1, 2, 14, 4.0).state_dict()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty torch hub folder, and a server that has only an 11-byte file."""
    server = tmp_path / "server" / "dinov2_vits14"
    server.mkdir(parents=True)
    (server / "dinov2_vits14_pretrain.pth").write_bytes(b"eleven byte")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(dinov2_weights, "BASE_URL", (tmp_path / "server").as_uri())
    digest = hashlib.sha256(b"eleven byte").hexdigest()
    monkeypatch.setattr(dinov2_weights, "OFFICIAL", {"dinov2_vits14": (11, digest)})
    monkeypatch.setattr(dinov2_weights, "PAUSES", ())
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_a_good_file_is_read_as_it_is(tmp_path, state, name):
    path = tmp_path / name
    save_file(state, path) if name.endswith("safetensors") else torch.save(state, path)
    found = read_weights(path, "dinov2_vits14", state)
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())


def test_all_mismatches_come_in_one_error(tmp_path, state):
    broken = dict(state)
    broken["blocks.0.attn.qkv.weights"] = broken.pop("blocks.0.attn.qkv.weight")
    broken["norm.weight"] = torch.ones(17)
    broken["norm.bias"] = torch.full((16,), torch.nan)
    torch.save(broken, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)
    message = str(caught.value)
    assert str(tmp_path / "w.pth") in message
    assert "missing: blocks.0.attn.qkv.weight;" in message
    assert "unexpected: blocks.0.attn.qkv.weights;" in message
    assert "wrong shape: norm.weight (17,) instead of (16,)" in message
    assert "not finite: norm.bias" in message


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"cls_token": torch.zeros(1, 1, 768)}, "looks like dinov2_vitb14 "),
        ({"cls_token": torch.zeros(1, 1, 384), "register_tokens": torch.zeros(1, 4, 384)}, "dinov2_vits14_reg"),
    ],
)
def test_another_known_model_is_called_by_its_name(tmp_path, state, extra, words):
    torch.save({**state, **extra}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=words):
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_a_file_that_is_no_state_dict_is_named(tmp_path, state, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name} cannot be read"):
        read_weights(tmp_path / name, "dinov2_vits14", state)


def test_something_else_than_tensors_is_refused(tmp_path, state):
    torch.save({"epoch": 1, "state": state}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="something else than named tensors"):
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32])
def test_weights_are_floating_point_numbers(tmp_path, state, name, dtype):
    broken = {**state, "norm.weight": state["norm.weight"].to(dtype)}
    save_file(broken, tmp_path / name) if name.endswith("safetensors") else torch.save(broken, tmp_path / name)
    with pytest.raises(WeightsError, match=f"wrong type: norm.weight {str(dtype)[6:]}|wrong type: norm.weight [CI]"):
        read_weights(tmp_path / name, "dinov2_vits14", state)


@pytest.mark.parametrize(
    "odd",
    [
        {"norm.weight": torch.eye(4).to_sparse()},
        {"norm.weight": torch.ones(16, device="meta")},
        {"norm.weight": torch.ones(16).to(torch.float8_e4m3fn)},
        {3: torch.ones(1)},
        {"cls_token": {}},
    ],
    ids=["sparse", "meta", "float8", "int key", "dict"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_odd_content_is_refused(tmp_path, state, odd, legacy):
    torch.save({**state, **odd}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        WeightsError, match=f"something else than named tensors, as {next(iter(odd))}|wrong type: norm.w|has no"
    ):
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_tensor_that_is_not_wanted_is_not_read(tmp_path, state, legacy):
    large = {"x": torch.ones(1).expand(3 * 10**9), "cls_token": torch.tensor(1.0)}
    torch.save({**state, **large}, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"unexpected: x; wrong shape: cls_token \(\) instead of"):
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("library", ["transformers 4", "transformers 5", "timm"])
def test_names_of_other_libraries_are_read(tmp_path, golden, library, suffix):
    official = load_file(golden("dinov2_reduced.safetensors"))
    if library == "timm":
        theirs = {name: tensor for name, tensor in official.items() if name != "mask_token"}
    else:
        theirs = to_transformers(official, int(library[-1]))
    path = tmp_path / f"w.{suffix}"
    save_file(theirs, path) if suffix == "safetensors" else torch.save(theirs, path)
    found = read_weights(path, "dinov2_vits14", official)
    assert all(torch.equal(found[name], tensor) for name, tensor in official.items() if name != "mask_token")


def test_a_whole_pickled_module_is_refused_by_name(tmp_path, state):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"a whole pickled torch\.nn\.modules\.linear\.Linear, code and all"):
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)


def test_a_compressed_file_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(tmp_path / "w.pth", "w") as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(WeightsError, match="is compressed"):
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)


def test_wrapped_weights_are_explained(tmp_path, state):
    wrapped = {f"teacher.backbone.{key}": tensor for key, tensor in state.items()}
    torch.save(wrapped, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"begin with teacher\.backbone\.: save the tensors without that prefix"):
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)
    torch.save({"teacher": state}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="save what is under teacher by itself"):
        read_weights(tmp_path / "w.pth", "dinov2_vits14", state)


def test_files_of_old_torch_and_of_half_precision_are_read(tmp_path, state):
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({key: tensor.half() for key, tensor in state.items()}, tmp_path / "half.pth")
    old, half = (read_weights(tmp_path / f"{name}.pth", "dinov2_vits14", state) for name in ("old", "half"))
    assert all(torch.equal(old[key], tensor) for key, tensor in state.items())
    assert all(torch.equal(half[key], tensor.half().float()) for key, tensor in state.items())


def test_code_in_a_weights_file_is_not_run(golden, state):
    with pytest.raises(WeightsError, match=r"posix\.system") as caught:
        read_weights(golden("malicious_os_system.pth"), "dinov2_vits14", state)
    assert "weights_only" not in str(caught.value)  # no advice to switch the guard off


def test_the_file_given_goes_before_the_cache(tmp_path, hub):
    hub.mkdir(parents=True)
    (hub / "dinov2_vits14_pretrain.pth").write_bytes(b"cached")
    given = tmp_path / "given.pth"
    given.write_bytes(b"given")
    assert find_weights("dinov2_vits14", str(given)) == given
    assert find_weights("dinov2_vits14", None).read_bytes() == b"cached"


def test_without_a_file_the_weights_are_fetched_once(hub, monkeypatch):
    assert find_weights("dinov2_vits14", None).read_bytes() == b"eleven byte"
    monkeypatch.setattr(dinov2_weights, "download", lambda *_, **__: pytest.fail("fetched a second time"))
    find_weights("dinov2_vits14", None)
    assert sorted(path.name for path in hub.iterdir()) == [f"dinov2_vits14_pretrain.pth{end}" for end in ("", ".json")]


@pytest.mark.parametrize(
    ("weights", "download", "name"), [(None, True, "dinov2_vitb14"), (None, False, "dinov2_vits14"), ("no", True, "x")]
)
def test_where_nothing_is_found_the_error_says_what_to_do(hub, weights, download, name):
    with pytest.raises(WeightsNotFoundError) as caught:
        find_weights(name, weights, download)
    assert f"encoder.weights=/path/to/{name}_pretrain.pth" in str(caught.value)
    assert dinov2_weights.BASE_URL in str(caught.value)


def test_a_download_of_something_else_is_refused(hub, tmp_path):
    (tmp_path / "server" / "dinov2_vits14" / "dinov2_vits14_pretrain.pth").write_bytes(b"eleven bits")
    with pytest.raises(WeightsNotFoundError, match="SHA-256"):
        find_weights("dinov2_vits14", None)
    assert not (hub / "dinov2_vits14_pretrain.pth").exists()


def test_a_flipped_bit_of_the_official_file_is_an_error(hub, tmp_path):
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    path.write_bytes(b"eleven bits")
    with pytest.raises(WeightsError, match=r"pretrain\.pth is damaged"):
        check_official(path, "dinov2_vits14", sha256(path))
    check_official(path.rename(tmp_path / "mine.pth"), "dinov2_vits14", sha256(tmp_path / "mine.pth"))
