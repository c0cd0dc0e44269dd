"""What a finished training run left to look at: its report, copied to where it is easy to find, and the decision."""

import shutil
from pathlib import Path
from typing import NamedTuple

from zenml.models import PipelineRunResponse

from components.registry.decision import Decision


class Results(NamedTuple):
    """Where to look."""

    report: Path
    decision: str


def collect(run: PipelineRunResponse, folder: Path) -> Results:
    """Copy tables and report of ``run`` to ``folder``, in the place of earlier ones, and put the decision in words."""
    evaluation = run.steps["evaluate"].outputs["evaluation"][0].load()
    decision = run.steps["promote"].outputs["decision"][0].load()
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(evaluation, folder)
    (report,) = folder.glob("*.html")
    return Results(report, _in_words(decision))


def _in_words(decision: Decision) -> str:
    verdict = "promoted to champion" if decision.promoted else "not promoted"
    return f"{verdict}: {decision.reasons[0]}"
