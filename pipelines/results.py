"""What a finished training run left to look at: its report, copied to where it is easy to find, and the decision."""

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from zenml.models import PipelineRunResponse

from components.registry.decision import Decision


class Results(NamedTuple):
    """Where to look."""

    report: Path
    decision: str


def collect(run: PipelineRunResponse, folder: Path) -> Results:
    """Copy tables and report of ``run`` to ``folder``, in the place of earlier ones, and put the decision in words.

    A process that is killed meanwhile leaves the earlier ones or these, whole.
    """
    evaluation = run.steps["evaluate"].outputs["evaluation"][0].load()
    decision = run.steps["promote"].outputs["decision"][0].load()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        copied = shutil.copytree(evaluation, Path(beside) / "new")
        if folder.exists():
            folder.rename(Path(beside) / "old")
        copied.rename(folder)
    (report,) = folder.glob("*.html")
    return Results(report, _in_words(decision))


def _in_words(decision: Decision) -> str:
    verdict = "promoted to champion" if decision.promoted else "not promoted"
    return f"{verdict}: {decision.reasons[0]}"
