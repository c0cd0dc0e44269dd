"""A small real pipeline under the names of stages, so that the stack file places it: one light stage, two on GPUs."""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

from zenml import pipeline

from steps.folders import checkpoint_folder, output_folder
from steps.stage import stage
from steps.tracking import tracked
from tests.pipelines.small import make, report


@stage
def count_up(numbers: Path, settings: dict[str, Any]) -> Annotated[Path, "model"]:
    """Sums the numbers with a checkpoint after each, `pause` seconds apart; keeps which processes took part."""
    with tracked(settings) as tracker:
        out, saved = output_folder(), checkpoint_folder() / "state.json"
        values = json.loads((numbers / "numbers.json").read_text())
        state = json.loads(saved.read_text()) if saved.is_file() else {"step": 0, "sum": 0, "hosts": []}
        state["hosts"].append(os.uname().nodename)
        while state["step"] < len(values):
            state["sum"] += values[state["step"]]
            state["step"] += 1
            saved.write_text(json.dumps(state))
            print(f"checkpoint {state['step']}", flush=True)
            tracker.metrics({"sum": state["sum"]}, state["step"])
            time.sleep(settings["pause"])
        (out / "model.json").write_text(json.dumps(state))
        return out


@pipeline(name="placed")
def placed(settings: dict[str, Any]) -> None:
    """make (as synthesize) -> count_up (as reinforce) -> report (as evaluate)."""
    numbers = make({"count": settings["count"], "comment": ""}, id="synthesize")
    report(count_up(numbers, {"pause": settings["pause"]}, id="reinforce"), id="evaluate")
