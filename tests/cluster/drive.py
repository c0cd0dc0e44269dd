"""Submits the small pipeline to the stack `kubernetes` in a process of its own: ZenML reads its environment once.

`python -m tests.cluster.drive SETTINGS`; the last line printed is a JSON object.
"""

import json
import os
import sys

from pipelines.environment import Server, prepare


def main() -> None:
    """Run once with the settings of the first argument over the defaults."""
    state = prepare(Server("kubernetes", os.environ["SPC_ZENML_URL"], os.environ["SPC_ZENML_API_KEY"]))
    from zenml.client import Client

    from pipelines.run import run_pipeline
    from tests.cluster.graph import placed

    settings = {"count": 6, "pause": 0.0, **json.loads(sys.argv[1])}
    finished = run_pipeline(placed, {"settings": settings}, stack="kubernetes", state=state)
    run = Client().get_pipeline_run(finished.run.id)
    summary = {
        "run": run.name,
        "status": run.status.value,
        "mlflow_run": finished.mlflow_run,
        "steps": {name: step.status.value for name, step in run.steps.items()},
        "model": json.loads((run.steps["reinforce"].output.load() / "model.json").read_text()),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
