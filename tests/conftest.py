"""Fixtures shared by all tests."""

import atexit
import functools
import os
import shutil
import signal
import sys
import tempfile

# isort: split
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # a worker a core; OpenMP reads it once, when torch is loaded
if sys.dont_write_bytecode and "PYTHONPYCACHEPREFIX" not in os.environ:
    # each of a hundred processes would compile torch for itself, in 5 of its 9 seconds: all share a folder instead,
    # which goes with the first of them, so that no bytecode is left behind
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = tempfile.mkdtemp(prefix="bytecode-")
    atexit.register(shutil.rmtree, sys.pycache_prefix, ignore_errors=True)
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# isort: split
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.opengl import OpenGLError
from envs.point_maze.simulator import PointMazeSimulator
from tests.processes import Processes
from tests.public_server import PublicServer

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the contracts be held against options of a user's own: ``pytest tests/contracts --config-dir mine``."""
    parser.addoption("--config-dir", action="append", default=[], help="folder with options of your own")
    parser.addoption("--setting", action="append", default=[], help="setting of every config that is composed for them")


def pytest_configure(config: pytest.Config) -> None:
    """Find the user's modules; hear Ctrl-C, which a shell tells its background jobs to ignore: tests send it."""
    sys.path.extend(str(Path(folder).resolve()) for folder in config.getoption("--config-dir"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # GPU kernels run on the CPU, slowly; read when Triton is first imported


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files of slow tests: one that comes last leaves the other cores without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what draws with OpenGL where there is none, before any of its fixtures draws; undo what an entry did."""
    # entries end the process at a Ctrl-C until their work begins; called from a test, they would end all tests
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if item.get_closest_marker("render") and (reason := _why_no_opengl()):
        pytest.skip(reason)


@functools.cache
def _why_no_opengl() -> str | None:
    simulator = PointMazeSimulator(32)
    simulator.reset(np.array([0.5, 0.5, 0.0, 0.0]), {})
    try:
        simulator.render()
    except OpenGLError as error:
        return str(error)
    finally:
        simulator.close()
    return None


@pytest.fixture
def golden() -> Callable[[str], Path]:
    """Find a recorded input/output file that travels with the repository."""
    return lambda name: REPOSITORY / "tests" / "golden" / name


@pytest.fixture
def shared_golden() -> Callable[[str], Path]:
    """Find one of the larger recorded files, which lie beside the repository; skip where they are absent."""

    def find(name: str) -> Path:
        path = REPOSITORY.parent / "shared" / "golden" / name
        if not path.exists():
            pytest.skip(f"the larger recorded file {name} does not lie beside this checkout")
        return path

    return find


@pytest.fixture(scope="session")
def wall_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets with a tiny ``wall_single`` in it, which nobody writes to."""
    from tests.training.tiny import make_wall

    return make_wall(tmp_path_factory.mktemp("tiny_data"))


@pytest.fixture
def data_root(wall_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same, where data sets are looked for; torch's threads are put back afterwards."""
    monkeypatch.setenv("DATASET_DIR", str(wall_root))
    threads = torch.get_num_threads()
    yield wall_root
    torch.set_num_threads(threads)


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command, its output and errors in one pipe; what still runs at the end of the test is killed."""
    started: list[subprocess.Popen[str]] = []

    def begin(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen(command, text=True, **pipes, **options))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Start ``python <words>`` with torch loaded; what still runs at the end of the test is killed.

    Takes the words of the command line, a working directory, environment variables beside ours, and whether the
    command leads a process group; gives a ``tests.forked.Forked``, with standard output and errors apart.
    """
    from tests.forked import Forked

    started: list[Forked] = []

    def begin(*words: object, cwd: Path = REPOSITORY, env: dict[str, str] | None = None, new_session: bool = False):
        folder = tmp_path_factory.mktemp("said")
        variables = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
        started.append(Forked(words, cwd, variables, folder / "output", folder / "errors", new_session))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def pair() -> Iterator[Processes]:
    """Two processes that work together."""
    processes = Processes(2)
    yield processes
    processes.close()


@pytest.fixture
def public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PublicServer]:
    """The servers of released files, in an empty working folder, waited for by nobody."""
    server = PublicServer()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("OSF_API", f"{server.url}/v2")
    monkeypatch.setenv("OSF_FILES", f"{server.url}/osf")
    monkeypatch.setenv("GDRIVE", server.url)
    monkeypatch.setattr("utils.downloads.time.sleep", lambda seconds: None)
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()
