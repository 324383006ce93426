"""The tiny study, run once for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiments import tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the study of two models, run by two workers; its report is in ``study`` below."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_models(folder)
    tiny.run(folder)
    return folder
