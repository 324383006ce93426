"""A package that is not installed is named in one line, with how to install it."""

import builtins
import sys

import pytest
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from launch.command_line import _message
from utils import missing
from utils.missing import missing_package


@pytest.fixture
def without(monkeypatch):
    """Let the import of a package fail."""

    def remove(name):
        usual = builtins.__import__

        def refuse(module, *arguments, **keywords):
            if module.partition(".")[0] == name:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            return usual(module, *arguments, **keywords)

        monkeypatch.setattr(builtins, "__import__", refuse)

    return remove


@pytest.mark.parametrize(("name", "package"), [("av", "av"), ("cv2", "opencv-python-headless"), ("PIL", "pillow")])
def test_an_entry_that_cannot_be_imported_says_what_to_install(without, capsys, name, package):
    without(name)
    with pytest.raises(ModuleNotFoundError) as error:
        exec(f"import {name}.anything")
    missing._excepthook(error.type, error.value, None)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"error: the package {package} is not installed" in said
    assert f"pip install {package}" in said


class Late:
    """A class that imports what it needs when it is built."""

    def __init__(self) -> None:
        import wandb  # noqa: F401


def test_a_class_that_imports_late_says_so_too(without):
    without("wandb")
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": f"{__name__}.Late"})
    assert _message(error.value).startswith("the package wandb is not installed")
    with pytest.raises(ModuleNotFoundError) as late:
        Late()
    assert _message(late.value).startswith("the package wandb is not installed")


@pytest.mark.parametrize("target", ["tests.utils.test_missing.Absent", "no_such_module_of_mine.Planner"])
def test_a_class_that_is_not_there_is_no_package_to_install(target):
    with pytest.raises(InstantiationException) as error:
        instantiate({"_target_": target})
    assert _message(error.value).startswith(f"there is no class {target}: check its spelling")


def test_a_mistake_in_our_own_imports_keeps_its_traceback(capsys):
    for name in ("planning.nowhere", "train", None):
        assert missing_package(ModuleNotFoundError("x", name=name)) is None
    assert missing_package(ImportError("x", name="av")) is None
    missing._excepthook(ValueError, ValueError("x"), None)
    assert "ValueError: x" in capsys.readouterr().err


def test_the_entries_have_the_hook():
    import datasets.collect
    import utils.runtime

    assert datasets.collect.missing is utils.runtime.missing is sys.modules["utils.missing"]
