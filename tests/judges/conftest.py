"""What stage III starts from, for trials of it with a judge."""

import pytest

from tests.training.stage_three import Inputs, write_inputs


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return write_inputs(tmp_path_factory.mktemp("inputs"))
