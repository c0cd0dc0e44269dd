"""Isolates ZenML and MLflow for the tests of the benchmarks, and brings fixtures of tests/data and tests/evaluation."""

from tests.data.conftest import photos_dir
from tests.evaluation.conftest import backbone, no_weights, photos
from tests.isolation import isolate

__all__ = ["backbone", "no_weights", "photos", "photos_dir"]

STATE = isolate()
