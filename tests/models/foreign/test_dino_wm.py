import os
import subprocess
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from models.foreign.dino_wm import CheckpointError, UnsafeCheckpointError, read_pickled_checkpoint
from models.networks.proprio import ProprioceptiveEmbedding
from models.networks.vit import ViTPredictor
from models.networks.vqvae import VQVAE
from tests.builders import REPOSITORY as ROOT

pytestmark = pytest.mark.usefixtures("dino_wm_names")


class Payload:
    """Unpickled without a guard, it calls ``function``."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.fixture
def content() -> dict:
    """What DINO-WM's trainer hands to torch.save: whole modules, in training mode, and optimisers."""
    predictor = ViTPredictor(4, 1, 8, depth=2, heads=2, mlp_dim=8, dim_head=4)
    optimizer = torch.optim.AdamW(predictor.parameters())
    predictor(torch.ones(1, 4, 8)).sum().backward()
    optimizer.step()
    return {
        "epoch": 3,
        "predictor": predictor,
        "decoder": VQVAE(4, n_res_block=1, n_res_channel=2, emb_dim=3, num_patches=4),
        "action_encoder": ProprioceptiveEmbedding(10, 2),
        "proprio_encoder": ProprioceptiveEmbedding(4, 2),
        "predictor_optimizer": optimizer,
    }


@pytest.fixture
def read(tmp_path):
    """Save with torch, read with the adapter."""

    def save_and_read(content: object, **how):
        torch.save(content, tmp_path / "model_3.pth", **how)
        return read_pickled_checkpoint(tmp_path / "model_3.pth")

    return save_and_read


def assert_same(found: dict, module: nn.Module) -> None:
    expected = module.state_dict()
    assert set(found) == set(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("name", ["pusht_h3", "wall_h1"])
def test_checkpoints_of_the_original_trainer_are_read(shared_golden, name):
    checkpoint = read_pickled_checkpoint(shared_golden(f"checkpoints/{name}/checkpoints/model_latest.pth"))
    history, proprio = (3, 4) if name == "pusht_h3" else (1, 2)
    assert checkpoint.epoch == 1
    assert checkpoint.classes == {
        "predictor": "models.vit.ViTPredictor",
        "decoder": "models.vqvae.VQVAE",
        "action_encoder": "models.proprio.ProprioceptiveEmbedding",
        "proprio_encoder": "models.proprio.ProprioceptiveEmbedding",
    }
    assert checkpoint.parts["predictor"]["pos_embedding"].shape == (1, history * 196, 68)
    assert checkpoint.parts["proprio_encoder"]["patch_embed.weight"].shape == (10, proprio, 1)


def test_a_checkpoint_from_a_gpu_and_an_older_accelerate_holds_the_same(shared_golden):
    here, there = (
        read_pickled_checkpoint(shared_golden(f"checkpoints/wall_h1/checkpoints/{name}.pth")).parts
        for name in ("model_latest", "model_gpu_accelerate026")
    )
    assert here.keys() == there.keys()
    for part, tensors in here.items():
        assert tensors.keys() == there[part].keys()
        assert all(torch.equal(tensor, there[part][name]) for name, tensor in tensors.items())
        assert all(tensor.device.type == "cpu" for tensor in there[part].values())


def test_modules_come_back_as_state_dicts(content, read):
    checkpoint = read(content)
    assert checkpoint.epoch == 3
    assert set(checkpoint.parts) == {"predictor", "decoder", "action_encoder", "proprio_encoder"}
    for part, tensors in checkpoint.parts.items():
        assert_same(tensors, content[part])


def test_leftovers_of_training_are_ignored(content, read):
    content["proprio_encoder"]._wandb_hook_names = ["_forward_hooks/0"]
    attention = content["predictor"].transformer.layers[0][0]
    attention.__dict__["bias"] = torch.ones(1, 1, 4, 4)  # the mask as a plain attribute, as some versions kept it
    attention.register_buffer("cache", torch.ones(3), persistent=False)
    expected = set(content["predictor"].state_dict())
    assert set(read(content).parts["predictor"]) == expected


def test_the_dataset_behind_an_optimiser_does_no_harm(content, read, monkeypatch):
    module = types.ModuleType("datasets.traj_dset")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class Trajectories(Dataset):
        def __init__(self):
            self.states, self.names = np.arange(6.0), {"a": (1, 2, 3, 4)}
            self.path, self.dtype = Path("data"), torch.float32

        def __len__(self):
            return 6

    Trajectories.__module__, Trajectories.__qualname__ = module.__name__, "Trajectories"
    module.Trajectories = Trajectories
    # accelerate's optimisers know the loader that is being iterated when the checkpoint is written
    generator = torch.Generator()
    loader = DataLoader(Subset(Trajectories(), [1, 2]), shuffle=True, generator=generator)
    checkpoint = read({**content, "decoder_optimizer": {"active_dataloader": loader}})
    assert_same(checkpoint.parts["predictor"], content["predictor"])


def test_distributed_wrappers_are_taken_off(content, read, tmp_path):
    if not torch.distributed.is_gloo_available():
        pytest.skip("this torch was built without gloo")
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(content["predictor"])
        checkpoint = read({**content, "predictor": wrapped})
    finally:
        torch.distributed.destroy_process_group()
    assert checkpoint.classes["predictor"] == "models.vit.ViTPredictor"
    assert_same(checkpoint.parts["predictor"], content["predictor"])


def test_what_was_read_outlives_the_file(content, tmp_path):
    path = tmp_path / "model_3.pth"
    torch.save(content, path)
    checkpoint = read_pickled_checkpoint(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert_same(checkpoint.parts["predictor"], content["predictor"])


def test_absent_parts_are_absent(content, read):
    checkpoint = read({**content, "decoder": None})
    assert "decoder" not in checkpoint.parts
    assert "decoder" not in checkpoint.classes


def test_a_hostile_file_is_refused_and_not_run(golden):
    path = golden("malicious_os_system.pth")
    with pytest.raises(UnsafeCheckpointError) as caught:
        read_pickled_checkpoint(path)
    assert "posix.system" in str(caught.value)
    assert str(path) in str(caught.value)
    assert not Path(tempfile.gettempdir(), "pwned_golden").exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("place", ["predictor", "predictor_optimizer", "note"])
def test_hostile_code_is_not_run_wherever_it_hides(content, read, tmp_path, place, protocol):
    sign = tmp_path / "sign"
    with pytest.raises(UnsafeCheckpointError, match=r"\.system"):
        read({**content, place: Payload(os.system, f"touch {sign}")}, pickle_protocol=protocol)
    assert not sign.exists()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (torch.hub.load, "torch.hub.load"),
        (torch.load, "torch.serialization.load"),
        (os.path.join, "posixpath.join"),
    ],
)
def test_the_refused_name_is_given(content, read, function, name):
    with pytest.raises(UnsafeCheckpointError, match=name):
        read({**content, "decoder": Payload(function, "a", "b")})


def test_all_refused_names_come_in_one_error(content, read):
    with pytest.raises(UnsafeCheckpointError, match=r"builtins\.eval, builtins\.exec"):
        read({**content, "a": Payload(exec, "1"), "b": Payload(eval, "1")})


@pytest.mark.parametrize("part", ["", "text", "half", "last byte", "old format", "other zip"])
def test_a_damaged_file_is_named(content, tmp_path, part):
    path = tmp_path / "model_3.pth"
    torch.save(content, path, _use_new_zipfile_serialization=part != "old format")
    whole = path.read_bytes()
    cut = {"": b"", "text": b"<html>not found</html>", "half": whole[: len(whole) // 2], "last byte": whole[:-1]}
    path.write_bytes(cut.get(part, whole))
    if part == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "hello")
    with pytest.raises(CheckpointError, match=r"model_3\.pth .*not a readable PyTorch checkpoint"):
        read_pickled_checkpoint(path)


def test_missing_tensor_data_is_a_damaged_file(content, tmp_path):
    torch.save(content, tmp_path / "whole.pth")
    with zipfile.ZipFile(tmp_path / "whole.pth") as whole, zipfile.ZipFile(tmp_path / "part.pth", "w") as part:
        for name in whole.namelist():
            if not name.endswith("data/0"):
                part.writestr(name, whole.read(name))
    with pytest.raises(CheckpointError, match=r"part\.pth"):
        read_pickled_checkpoint(tmp_path / "part.pth")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"model_9\.pth does not exist"):
        read_pickled_checkpoint(tmp_path / "model_9.pth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epoch": None}, "not a DINO-WM checkpoint"),
        ({"epoch": True}, "epoch must be a whole number from 0, found a bool"),
        ({"epoch": -5}, "epoch must be a whole number from 0"),
        ({"action_encoder": None, "proprio_encoder": None}, "no action_encoder and no proprio_encoder"),
        ({"predictor": {"pos_embedding": 1.0}}, "predictor should be .* module or a state dict, found dict with pos_"),
        ({"decoder": torch.ones(1)}, "decoder should be .* module or a state dict, found Tensor"),
    ],
)
def test_wrong_content_is_explained(content, read, change, words):
    with pytest.raises(CheckpointError, match=words):
        read({**content, **change})


@pytest.mark.parametrize("other", [torch.ones(2), [1, 2], {"state_dict": {"a": torch.ones(1)}}])
def test_another_kind_of_file_is_explained(read, other):
    with pytest.raises(CheckpointError, match="expected a dict with epoch, predictor"):
        read(other)


def test_weights_that_are_not_finite_are_named(content, read):
    with torch.no_grad():
        content["predictor"].pos_embedding[0, 0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="predictor holds NaN or infinity in pos_embedding"):
        read(content)


def test_modules_that_contain_each_other_are_an_error(content, read):
    content["decoder"].dec._modules["loop"] = content["decoder"]
    with pytest.raises(CheckpointError, match=r"contain each other|share their branches"):
        read(content)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_any_pickle_protocol_is_read(content, read, protocol):
    assert_same(read(content, pickle_protocol=protocol).parts["predictor"], content["predictor"])


def test_a_compiled_module_is_unwrapped(content, read):
    compiled = torch.compile(content["predictor"], backend="eager")
    checkpoint = read({**content, "predictor": compiled})
    assert checkpoint.classes["predictor"] == "models.vit.ViTPredictor"
    assert_same(checkpoint.parts["predictor"], content["predictor"])


def test_parameters_with_attributes_are_read(content, read):
    content["predictor"].pos_embedding.no_weight_decay = True  # pickled in another way than a bare parameter
    assert_same(read(content).parts["predictor"], content["predictor"])


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_a_state_dict_stands_for_its_module(content, read, prefix):
    module = content["predictor"]
    state = type(module.state_dict())((prefix + name, tensor) for name, tensor in module.state_dict().items())
    checkpoint = read({**content, "predictor": state})
    assert checkpoint.classes["predictor"] == "dict"
    assert_same(checkpoint.parts["predictor"], module)


def test_modules_that_share_their_branches_end(content, read):
    """Each holds the next one twice: 2^40 paths through 40 modules."""
    tree = nn.Linear(1, 1)
    for _ in range(40):
        tree = nn.Sequential(tree, tree)
    with pytest.raises(CheckpointError, match=r"contain each other|share their branches"):
        read({**content, "decoder": tree})


def test_a_mask_in_the_buffers_may_hold_infinities(content, read):
    mask = torch.full((1, 1, 4, 4), -torch.inf)
    content["predictor"].transformer.layers[0][0].register_buffer("bias", mask)
    assert torch.equal(read(content).parts["predictor"]["transformer.layers.0.0.bias"], mask)


def test_tensors_that_share_memory_come_back_apart(content, read):
    content["action_encoder"].patch_embed.bias = content["proprio_encoder"].patch_embed.bias
    parts = read(content).parts
    assert torch.equal(parts["action_encoder"]["patch_embed.bias"], parts["proprio_encoder"]["patch_embed.bias"])


def test_a_part_of_a_storage_is_read_as_such(content, read):
    whole = torch.arange(40.0)
    content["action_encoder"].patch_embed.bias = nn.Parameter(whole[5:25:10])
    found = read(content).parts["action_encoder"]["patch_embed.bias"]
    assert found.tolist() == [5.0, 15.0]
    assert found.untyped_storage().nbytes() == 8


def rewritten(path: Path, change) -> None:
    """The same archive with records changed by ``change(name, content) -> (content, compression)``."""
    with zipfile.ZipFile(path) as archive:
        records = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records:
            new, compression = change(name, content)
            archive.writestr(name, new, compression)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda n, c: (c[:-4] if n.endswith("data/0") else c, 0), r"data/0 should have \d+ bytes, it has"),
        (lambda n, c: (c, zipfile.ZIP_DEFLATED), "is compressed, which torch.save never does"),
        (lambda n, c: (b"big" if n.endswith("byteorder") else c, 0), "stored big-endian"),
    ],
    ids=["short", "compressed", "big-endian"],
)
def test_archives_that_lie_are_refused(content, tmp_path, change, words):
    path = tmp_path / "model_3.pth"
    torch.save(content, path)
    rewritten(path, change)
    with pytest.raises(CheckpointError, match=words):
        read_pickled_checkpoint(path)


def test_a_flipped_bit_is_found(content, tmp_path):
    path = tmp_path / "model_3.pth"
    torch.save(content, path)
    spoilt = bytearray(path.read_bytes())
    place = spoilt.index(content["predictor"].pos_embedding.detach().numpy().tobytes())
    spoilt[place] ^= 1
    path.write_bytes(spoilt)
    with pytest.raises(CheckpointError, match=r"Bad CRC-32"):
        read_pickled_checkpoint(path)


HOSTILE = {
    "reaches beyond its storage": b"ctorch._utils\n_rebuild_tensor_v2\n",
    "sets an attribute of a function": b"(ctorch._utils\n_rebuild_tensor_v2\nN}X\x01\x00\x00\x00aK\x01s\x86b.",
    "calls a number": b"\x80\x02K\x01)R.",
    "an extension": b"\x80\x02\x82\x07.",
    "no end": b"\x80\x02}",
    "a storage that is none": b"\x80\x02U\x03abcQ.",
}


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE)
def test_nonsense_pickles_are_refused(content, tmp_path, pickled):
    path = tmp_path / "model_3.pth"
    torch.save(content, path)
    rewritten(path, lambda name, old: (pickled if name.endswith("data.pkl") else old, 0))
    with pytest.raises(CheckpointError, match=r"model_3\.pth"):
        read_pickled_checkpoint(path)


@pytest.mark.slow
def test_a_full_size_file_is_read_in_seconds_and_in_less_than_twice_its_size(tmp_path):
    """In a process of its own: the highest memory a process ever had never falls again."""
    path = tmp_path / "model_latest.pth"
    predictor = ViTPredictor(196, 3, 404, depth=6, heads=16, mlp_dim=2048)
    small = {"action_encoder": ProprioceptiveEmbedding(10, 10), "proprio_encoder": ProprioceptiveEmbedding(4, 10)}
    torch.save({"epoch": 1, "predictor": predictor, "decoder": VQVAE(384), **small}, path)
    program = (
        "import re, sys, time\n"
        "from models.foreign.dino_wm import read_pickled_checkpoint\n"
        "status = lambda: open('/proc/self/status').read()\n"
        "peak = lambda: 1024 * int(re.search(r'VmHWM:\\s+(\\d+)', status())[1])\n"  # getrusage shows the parent's too
        "before, begin = peak(), time.perf_counter()\n"
        "read_pickled_checkpoint(sys.argv[1])\n"
        "print(time.perf_counter() - begin, peak() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True, cwd=ROOT)
    seconds, memory = map(float, done.stdout.split())
    assert path.stat().st_size > 100e6
    assert seconds < 3
    assert memory < 2 * path.stat().st_size
