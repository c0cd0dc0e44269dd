"""Isolates ZenML and MLflow for the tests of the pipelines."""

import pytest

from pipelines.environment import State
from tests.isolation import isolate

STATE = isolate()


@pytest.fixture(scope="session")
def state() -> State:
    """The temporary state folder of the session."""
    return STATE
