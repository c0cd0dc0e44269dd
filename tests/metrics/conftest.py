"""The fixtures of tests/evaluation that tests of the measures need, too."""

from tests.evaluation.conftest import backbone, no_weights, photos

__all__ = ["backbone", "no_weights", "photos"]
