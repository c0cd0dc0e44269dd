"""Isolates ZenML and MLflow for the tests of the steps."""

import pytest

from pipelines.environment import State
from tests.isolation import isolate

STATE = isolate()


@pytest.fixture(scope="session")
def state() -> State:
    """The temporary state folder of the session."""
    return STATE
