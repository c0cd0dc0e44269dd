"""Isolates ZenML and MLflow for the tests of the benchmarks, and brings the fixtures of what is measured."""

import pytest

from pipelines.environment import State
from tests.data.conftest import photos_dir
from tests.evaluation.conftest import backbone, no_weights, photos
from tests.isolation import isolate
from tests.serving.conftest import processes, serve, served

__all__ = ["backbone", "no_weights", "photos", "photos_dir", "processes", "serve", "served"]

STATE = isolate()


@pytest.fixture(scope="session")
def state() -> State:
    """The temporary state folder of the session."""
    return STATE
