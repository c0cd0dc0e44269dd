"""A small real pipeline for the tests of the orchestration: makes numbers, adds them up, reports the sum."""

import json
import os
import signal
from pathlib import Path
from typing import Annotated, Any

from zenml import pipeline

from steps.folders import checkpoint_folder, output_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def make(settings: dict[str, Any]) -> Annotated[Path, "numbers"]:
    """A folder with one file of numbers; `comment` in the settings changes nothing about it."""
    with tracked(settings) as tracker:
        out = output_folder()
        (out / "numbers.json").write_text(json.dumps(list(range(settings["count"]))))
        tracker.artifact(out / "numbers.json", "numbers")
        return out


@stage
def train(numbers: Path, settings: dict[str, Any]) -> Annotated[Path, "model"]:
    """Sums the numbers, one per step, with a checkpoint after each; `SPC_TEST_KILL_AT` kills the process at a step."""
    with tracked(settings) as tracker:
        out, saved = output_folder(), checkpoint_folder() / "state.json"
        values = json.loads((numbers / "numbers.json").read_text())
        state = json.loads(saved.read_text()) if saved.is_file() else {"step": 0, "sum": 0, "processes": []}
        state["processes"].append(os.getpid())
        while state["step"] < len(values):
            state["sum"] += values[state["step"]] * settings["weight"]
            state["step"] += 1
            saved.write_text(json.dumps(state))
            tracker.metrics({"sum": state["sum"]}, state["step"])
            if os.environ.get("SPC_TEST_KILL_AT") == str(state["step"]):
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ.get("SPC_TEST_RAISE_AT") == str(state["step"]):
                raise RuntimeError("the disk is full")
        (out / "model.json").write_text(json.dumps(state))
        return out


@stage
def report(model: Path) -> Annotated[Path, "report"]:
    """One HTML file with the sum."""
    with tracked() as tracker:
        out = output_folder() / "report.html"
        out.write_text(f"<p>{json.loads((model / 'model.json').read_text())['sum']}</p>")
        tracker.metrics({"length": len(out.read_text())}, 0)
        return out


@pipeline(name="small")
def small(settings: dict[str, Any]) -> None:
    """make -> train -> report."""
    report(train(make({"count": settings["count"], "comment": settings["comment"]}), {"weight": settings["weight"]}))
