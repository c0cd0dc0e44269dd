"""``@stage``: a ZenML step with what all steps of this project share."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zenml import step
from zenml.config.cache_policy import CachePolicy
from zenml.steps import BaseStep

import steps.directories  # noqa: F401  files and folders as artifacts
from steps.code import dependencies


def stage(function: Callable[..., Any]) -> BaseStep:
    """Make ``function`` a step that is tracked in MLflow and cached by everything its result depends on.

    The cache key holds the inputs (by content), the parameters, and the files of :func:`steps.code.dependencies`.
    """
    files = dependencies(Path(inspect.getfile(function)))
    return step(experiment_tracker=True, cache_policy=CachePolicy(file_dependencies=files))(function)
