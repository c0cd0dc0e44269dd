"""A small real pipeline under the names of stages, so that the stack file places it; its last stage is the real gate.

Faults are let loose on it: a light stage, one on a GPU node with checkpoints, and the promotion of a package that a
training run has made, which ends in the registry.
"""

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

from zenml import pipeline
from zenml.client import Client

from steps.folders import checkpoint_folder, output_folder
from steps.promote import promote
from steps.stage import stage
from steps.tracking import tracked
from tests.pipelines.small import make


@stage
def count_up(numbers: Path, settings: dict[str, Any]) -> Annotated[Path, "model"]:
    """Sums the numbers with a checkpoint after each, `pause` seconds apart; keeps which pods took part."""
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
def placed(counting: dict[str, Any], package: str, manifest: str, data_revision: str, settings: dict[str, Any]) -> None:
    """make (as synthesize) -> count_up (as reinforce) -> promote.

    Args:
        counting: how many numbers (``count``), how long to wait after each (``pause``), and a ``name`` for the run.
        package, manifest: ids of artifact versions that a training run left.
        settings: of the gate and of the evaluation.
    """
    numbers = make({"count": counting["count"], "comment": counting["name"]}, id="synthesize")
    count_up(numbers, {"pause": counting["pause"], "name": counting["name"]}, id="reinforce")
    store = Client()
    promote(
        store.get_artifact_version(package),
        store.get_artifact_version(manifest),
        data_revision,
        settings["gate"],
        settings["evaluate"],
        after=["reinforce"],
    )
