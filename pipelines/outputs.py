"""Where the outputs of the last completed training run lie: `python -m pipelines.outputs` prints them as JSON.

Measurements start from the adapters of any stage this way, without knowing ZenML.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.environment import prepare

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse


def main() -> int:
    """Print one line: a JSON object with the path of every file and folder by ``step/output``; 1 if there is no run."""
    prepare()
    from zenml.client import Client
    from zenml.enums import ExecutionStatus

    runs = Client().list_pipeline_runs(
        pipeline_name="training", status=ExecutionStatus.COMPLETED.value, sort_by="desc:created", size=1, hydrate=True
    )
    if not runs.items:
        print("no training run has completed yet: run `make pipeline`", file=sys.stderr)
        return 1
    print(json.dumps(outputs(runs.items[0])))
    return 0


def outputs(run: "PipelineRunResponse") -> dict[str, str]:
    """Paths by ``step/output``; what is no file or folder, or lies in a remote store, is left out."""
    loaded = {
        f"{name}/{output}": versions[0].load()
        for name, step in run.steps.items()
        for output, versions in step.outputs.items()
        if Path(versions[0].uri).is_dir()
    }
    return {name: str(value) for name, value in loaded.items() if isinstance(value, Path)}


if __name__ == "__main__":
    sys.exit(main())
