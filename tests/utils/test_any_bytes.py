"""Every reader, given any bytes: the content, or one error that names the file.

``READER_EXAMPLES=20000`` tries more of them.
"""

import functools
import os
import pickle
import pickletools
import random
import tracemalloc
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from datasets.episode_store import VideoStore
from datasets.files import load_plain_pickle, load_tensor, write_whole
from datasets.formats.video import read_frames
from launch.record import read_record
from models.checkpoints.config_file import read_model_config
from models.checkpoints.native import read_weights_file
from models.checkpoints.own_file import write_tensors
from models.checkpoints.summary import summarise
from models.foreign.dinov2_weights import read_weights
from utils.files import write_json
from utils.loggers import read_json_lines
from utils.reading.json_file import read_json
from utils.reading.npz_file import read_npz
from utils.reading.torch_file import read_torch
from utils.tensor_files import write_torch

EXAMPLES = int(os.environ.get("READER_EXAMPLES", "25"))
MOST_MEMORY = 50e6
QUIET = functools.partial(
    settings, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
NUMBERS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(3)}
PARTS = {"action_encoder": NUMBERS, "proprio_encoder": NUMBERS, "epoch": 3}
STATE = {"model": NUMBERS, "step": 7, "rng": torch.zeros(16, dtype=torch.uint8), "log": None, "name": "a", "b": [1.5]}
FLAT = {f"predictor.{name}": tensor for name, tensor in NUMBERS.items()}
ABOUT = {"normalizer": {"action_mean": [0.5]}, "validation": [1, 2], "step": 4}
TABLE = torch.arange(24.0).reshape(2, 4, 3)


class Kind(NamedTuple):
    """A file, how it is written and read, and whether one flipped bit anywhere is an error."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], Any]
    is_sealed: bool = False


def legacy(value: object) -> Callable[[Path], object]:
    return lambda path: torch.save(value, path, _use_new_zipfile_serialization=False)


KINDS = [
    Kind("model_3.pth", lambda path: torch.save(PARTS, path), lambda path: read_weights_file(path).tensors),
    Kind("model_4.pth", lambda path: torch.save(PARTS, path), lambda path: summarise(path).parts),
    Kind(
        "model_3.safetensors",
        lambda path: write_tensors(path, FLAT, 3, ABOUT),
        lambda path: (read_weights_file(path).tensors, read_weights_file(path).about),
        is_sealed=True,
    ),
    Kind("training_state.pt", lambda path: write_torch(path, STATE), read_torch, is_sealed=True),
    Kind("states.pth", lambda path: write_torch(path, TABLE), load_tensor, is_sealed=True),
    Kind("released.pth", lambda path: torch.save(TABLE, path), load_tensor),
    Kind("old.pth", legacy(TABLE), load_tensor),
    Kind(
        "seq_lengths.pkl",
        lambda path: write_whole(path, lambda file: file.write(pickle.dumps([3, 4, 5])), "pickle"),
        load_plain_pickle,
        is_sealed=True,
    ),
    Kind("array.pkl", lambda path: path.write_bytes(pickle.dumps(np.arange(5))), load_plain_pickle),
    Kind(
        "episode_000.mp4",
        lambda path: VideoStore().write(path, torch.zeros(2, 3, 16, 16, dtype=torch.uint8)),
        lambda path: read_frames(path, [0, 1]),
        is_sealed=True,
    ),
    Kind("w.pth", lambda path: torch.save(NUMBERS, path), lambda path: read_weights(path, "dinov2_vits14", NUMBERS)),
    Kind("w_old.pth", legacy(NUMBERS), lambda path: read_weights(path, "dinov2_vits14", NUMBERS)),
    Kind(
        "w.safetensors",
        lambda path: save_file(NUMBERS, path),
        lambda path: read_weights(path, "dinov2_vits14", NUMBERS),
    ),
    Kind("results.json", lambda path: write_json(path, {"a": [1, 2.5, None, "x"]}), lambda path: read_json(path, dict)),
    Kind("logs.json", lambda path: path.write_text('{"step": 1}\n{"step": 2}\n'), read_json_lines),
    Kind("hydra.yaml", lambda path: path.write_text("a: 1\nb: {c: [1e-4, x]}\n"), read_model_config),
    Kind("plan_targets.npz", lambda path: np.savez(path, a=np.arange(3.0)), lambda path: str(read_npz(path))),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("any bytes")


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def made(request, folder):
    """A kind of file, the path of a good one, and its bytes."""
    kind: Kind = request.param
    path = folder / kind.name
    kind.write(path)
    return kind, path, path.read_bytes()


def outcome(kind: Kind, path: Path, content: bytes) -> Any:
    """What a reader makes of some bytes: a value, or the error; never another exception, never much memory."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        return kind.read(path)
    except (ValueError, OSError) as error:
        assert path.name in str(error)
        assert "\n" not in str(error)
        return error
    finally:
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
        tracemalloc.stop()


def equal(left: Any, right: Any) -> bool:
    return pickle.dumps(left) == pickle.dumps(right)


@st.composite
def mutations(draw: st.DrawFn, size: int) -> list[tuple[str, int, Any]]:
    places = st.integers(0, size - 1)
    edit = st.one_of(
        st.tuples(st.just("flip"), places, st.integers(0, 7)),
        st.tuples(st.just("cut"), places, st.none()),
        st.tuples(st.just("splice"), places, st.binary(max_size=16)),
        st.tuples(st.just("repeat"), places, st.integers(1, 64)),
        st.tuples(st.just("number"), places, st.sampled_from([0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1])),
    )
    return draw(st.lists(edit, min_size=1, max_size=3))


def changed(content: bytes, edits: list[tuple[str, int, Any]]) -> bytes:
    for what, place, value in edits:
        if what == "flip" and place < len(content):
            content = content[:place] + bytes([content[place] ^ 1 << value]) + content[place + 1 :]
        elif what == "cut":
            content = content[:place]
        elif what == "splice":
            content = content[:place] + value + content[place:]
        elif what == "repeat":
            content = content[:place] + content[place : place + value] * 3 + content[place + value :]
        elif what == "number":
            content = content[:place] + value.to_bytes(8, "little") + content[place + 8 :]
    return content


def test_a_changed_file_is_read_or_named(made):
    kind, path, good = made
    expected = outcome(kind, path, good)
    assert not isinstance(expected, Exception), expected
    for stop in range(0, len(good), max(1, len(good) // 40)):
        outcome(kind, path, good[:stop])

    @QUIET(max_examples=EXAMPLES)
    @given(mutations(len(good)))
    def check(edits):
        outcome(kind, path, changed(good, edits))

    check()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.is_sealed], ids=lambda kind: kind.name)
def test_one_flipped_bit_anywhere_is_an_error(folder, kind):
    path = folder / kind.name
    kind.write(path)
    good = path.read_bytes()
    draws = random.Random(1)
    places = draws.sample(range(len(good)), min(len(good), EXAMPLES * 4))
    places += range(max(0, len(good) - 48), len(good))  # where the checksums end
    for place in places:
        found = outcome(kind, path, changed(good, [("flip", place, draws.randrange(8))]))
        assert isinstance(found, Exception), (place, len(good))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary() | st.just(1j),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
        | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3).map(OrderedDict)
        | st.frozensets(st.integers(-5, 5) | st.text("ab"), max_size=3)
        | st.sets(st.integers(-5, 5), max_size=3)
    ),
    max_leaves=10,
)


@QUIET(max_examples=5 * EXAMPLES)
@given(value=plain, protocol=st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_plain_data_come_back(tmp_path_factory, value, protocol):
    path = tmp_path_factory.getbasetemp() / "plain.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert repr(load_plain_pickle(path)) == repr(value) or load_plain_pickle(path) == value


WORDS = [
    b"cbuiltins\nset\n",
    b"cnumpy\ndtype\n",
    b"c_codecs\nencode\n",
    b"cnumpy.core.multiarray\nscalar\n",
    b"(",
    b"2",
]
WORDS += [b"cbuiltins\nbytearray\n", b"\x8a\x05\x00^\xd0\xb2\x00", b"X\x02\x00\x00\x00f8", b"\x85R", b"\x86R", b"\x87R"]
operations = st.sampled_from([ord(op.code) for op in pickletools.opcodes])
pickles = st.lists(
    st.one_of(
        operations.map(lambda code: bytes([code])),
        st.tuples(operations, st.binary(max_size=8)).map(lambda pair: bytes([pair[0]]) + pair[1]),
        st.sampled_from(WORDS),
    ),
    max_size=40,
).map(b"".join)


@QUIET(max_examples=10 * EXAMPLES)
@given(content=pickles)
def test_any_operations_of_a_pickle_end(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "ops.pkl"
    outcome(Kind("ops.pkl", Path.touch, load_plain_pickle), path, b"\x80\x04" + content + b".")


FLOAT64 = b"cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nX\x02\x00\x00\x00f8\x85RK\x01\x86R"
LONG_TEXT = b"X\x00\x00\x10\x00" + b"a" * 2**20 + b"q\x00X\x06\x00\x00\x00latin1q\x01"
BOMBS = {
    "set": b"(K\x01" + b"2\x86" * 43 + b"K\x02K\x03l.",
    "doubled": b"K\x01" + b"2\x86" * 60 + b".",
    "wide": b"(K\x01" + b"2" * 1000 + b"lq\x00" + b"(" + b"h\x00" * 1000 + b"l.",
    "bytearray": b"cbuiltins\nbytearray\n\x8a\x05\x00^\xd0\xb2\x00\x85R.",
    "many texts": LONG_TEXT + b"](" + b"c_codecs\nencode\nh\x00h\x01\x86R" * 200 + b"e.",
    "numbers with one hash": b"cbuiltins\nset\n]("
    + b"".join(pickle.dumps(n * (2**61 - 1), 2)[2:-1] for n in range(1, 3000))
    + b"e\x85R.",
    "a complex key": b"}(cbuiltins\ncomplex\nG" + bytes(8) + b"G" + bytes(8) + b"\x86RK\x01u.",
    "numbers without bytes": b"](" + FLOAT64 * 3000 + b"e.",
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_a_small_pickle_takes_no_more_than_its_size_allows(tmp_path, content):
    (tmp_path / "bomb.pkl").write_bytes(b"\x80\x02" + content)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"bomb\.pkl"):
            load_plain_pickle(tmp_path / "bomb.pkl")
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()


def test_records_of_runs_are_whole_or_nothing(tmp_path):
    for text in ("", "[]", '{"status": "finished", "config": {}, "attempts": []}', '{"status": 1}', "\xff"):
        (tmp_path / "run.json").write_text(text, encoding="latin-1")
        assert read_record(tmp_path) is None
