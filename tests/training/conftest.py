"""Tiny models, adapters that already know something, pairs, and the folder names that stage III is given."""

from pathlib import Path

import pytest

from tests.training.stage_three import Inputs, write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository, where processes that the tests start find the packages."""
    return Path(__file__).parents[2]
