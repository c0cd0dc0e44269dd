"""What each pod of a stage on several nodes runs: `python -m steps.node STAGE`, in the code that the run started with.

ZenML starts the pods of a command step with the image and no code, inputs or outputs. What they need lies on the volume
that all pods share, where the step before (steps/nodes.py) has put it; the run that they belong to is told by their
labels, and how they reach each other by variables that ZenML sets. Imports no ZenML unless there is an error.
"""

import logging
import os
import sys
import traceback
from pathlib import Path
from uuid import UUID

from components.training.launch import Rendezvous
from components.training.nodes import ReplacedError, end_on_sigterm, take_part
from steps.pods import RUN_VARIABLE, STATE_VARIABLE, STEP_RUN_VARIABLE, run_folder

log = logging.getLogger(__name__)


def main(stage: str) -> int:
    """Do this pod's part of a stage; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    end_on_sigterm()
    run = run_folder(Path(os.environ[STATE_VARIABLE]), os.environ[RUN_VARIABLE])
    address = os.environ["ZENML_KUBERNETES_MAIN_ADDRESS"]
    place = Rendezvous(
        nodes=int(os.environ["ZENML_KUBERNETES_POD_COUNT"]),
        node=int(os.environ["JOB_COMPLETION_INDEX"]),
        address=address,
        port=int(os.environ["ZENML_KUBERNETES_MAIN_PORT"]),
    )
    attempt = address.partition(".")[0]  # named after the job, and so another one each time
    try:
        take_part(stage, Path((run / stage).read_text(encoding="utf-8")), attempt, place)
    except ReplacedError as reason:
        log.error("%s", reason)
        return 1
    except Exception as error:
        log.exception("node %d failed", place.node)
        _report(error)
        return 1
    return 0


def _report(error: Exception) -> None:
    """Tell ZenML why: it asks nobody else, and would only say that the step failed."""
    try:
        from zenml.client import Client
        from zenml.models import ExceptionInfo, StepRunUpdate

        info = ExceptionInfo(message=str(error), traceback=traceback.format_exc())
        step_run = UUID(os.environ[STEP_RUN_VARIABLE])
        Client().zen_store.update_run_step(step_run, StepRunUpdate(exception_info=info))
    except Exception:
        log.exception("ZenML could not be told")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
