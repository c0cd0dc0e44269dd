"""`make tables` and `make ablation`: run the pipeline and put its pages where they are found."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.data.versioning import data_revision
from pipelines.environment import ROOT, State

TABLES, ABLATION = ROOT / "reports" / "tables", ROOT / "reports" / "ablation"


def judge_versions(
    settings: dict[str, Any], versions: Sequence[str], stack: str, state: State, folder: Path = TABLES
) -> Path:
    """The page with the tables, in ``folder`` in the place of earlier ones.

    Args:
        versions: "name=version", the version being a number or an alias.

    Raises:
        ValueError: a version is not of that form, or not in the registry.
        pipelines.lock.BusyError, pipelines.stack.StackError, components.data.versioning.DataUnavailable: as there.
    """
    import mlflow
    from zenml.integrations.mlflow.mlflow_utils import get_tracking_uri

    from pipelines.evaluation import evaluation
    from pipelines.run import run_pipeline
    from pipelines.stack import read_stack, register
    from steps.registry import resolve_version

    register(read_stack(stack, state))
    mlflow.set_tracking_uri(get_tracking_uri())
    resolved = {}
    for text in versions:
        name, separator, version = text.partition("=")
        if not (name and separator and version):
            raise ValueError(f"--version {text}: expected NAME=VERSION, such as enhance=champion or full=3")
        resolved[name] = resolve_version(version)
    parameters = {**_inputs(settings, stack), "versions": resolved}
    finished = run_pipeline(evaluation, parameters, stack, state)
    return _place(finished.run.steps["judge"].outputs["tables"][0].load(), folder)


def compare_variants(settings: dict[str, Any], stack: str, state: State, folder: Path = ABLATION) -> Path:
    """Train the variants of stage III; the page that compares them, in ``folder`` in the place of an earlier one.

    Raises: as `judge_versions`, or whatever stopped a step.
    """
    from pipelines.ablation import ablation
    from pipelines.run import run_pipeline

    finished = run_pipeline(ablation, _inputs(settings, stack), stack, state)
    return _place(finished.run.steps["ablate"].outputs["ablation"][0].load(), folder)


def _inputs(settings: dict[str, Any], stack: str) -> dict[str, Any]:
    from steps.lineage import check_sources, data_folders, working_copy

    if stack == "local":
        check_sources(settings)
    return {
        "settings": settings,
        "data_revision": data_revision(ROOT),
        "working_copy": working_copy(*data_folders(settings)),
    }


def _place(made: Path, folder: Path) -> Path:
    """Copy what a step made to ``folder``; returns the page in it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made, folder)
    return folder / "tables.html"
