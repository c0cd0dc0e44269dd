"""Before and after a stage runs in pods on several nodes: its job is prepared on the shared volume, its result fetched.

A job is named by ZenML's cache key of the step that prepares it, a digest of code, settings and inputs, so that a
repeated run finds the result, and one that was interrupted its checkpoints. steps/node.py is what the pods run.
"""

import logging
import shutil
from collections.abc import Callable
from typing import Any

from zenml import get_step_context
from zenml.artifacts.unmaterialized_artifact import UnmaterializedArtifact
from zenml.steps import BaseStep

from components.files import write_text
from steps.folders import job_folder, shared_folder, state_folder
from steps.lineage import ROOT, data_folder
from steps.pods import CODE_FOLDER, run_folder
from steps.stage import stage

log = logging.getLogger(__name__)

_CODE = ("components", "steps", "configs")


def preparation(function: Callable[..., Any]) -> BaseStep:
    """Make a function that ends in `hand_over` a step, which no run takes from the cache: its pods look for the job."""
    return stage(function).with_options(enable_cache=False)


def hand_over(name: str, settings: dict[str, Any], revision: str, **inputs: UnmaterializedArtifact) -> str:
    """Lay down everything that the pods of a stage need; nothing is fetched for a job that is done already.

    Args:
        name: of the stage and its function.
        settings: of the stage, checked.
        revision: the DVC revision of data/.
        inputs: artifacts by the arguments of the stage's function; copied to the shared volume, once for all jobs.

    Returns:
        The folder of the job.
    """
    from components.training.job import Job
    from components.training.nodes import finished

    folder, run = job_folder(), get_step_context().pipeline_run
    if finished(folder) is not None and run.config.enable_cache is False:
        shutil.rmtree(folder)  # to be done again
    if finished(folder) is None:
        given = {
            argument: shared_folder(f"{name_of(artifact)}-{artifact.content_hash or artifact.id}", artifact.load)
            for argument, artifact in inputs.items()
        }
        given["base"] = shared_folder(f"base-{revision}", lambda: data_folder(revision) / "base")
        given["checkpoints"] = folder / "checkpoints"
        Job(settings=settings, arguments=given).write(folder)
    else:
        log.info("%s was done by an earlier run", name)
    mine = run_folder(state_folder(), str(run.id))
    for part in _CODE:
        shutil.copytree(
            ROOT / part, mine / CODE_FOLDER / part, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )
    write_text(mine / name, str(folder))
    return str(folder)


def name_of(artifact: UnmaterializedArtifact) -> str:
    """The name of an artifact as part of a file name."""
    return artifact.name.replace("/", "-").replace(":", "-")
