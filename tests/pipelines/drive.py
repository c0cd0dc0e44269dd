"""Runs the small pipeline in a process of its own, because ZenML reads its environment once, at import.

`python -m tests.pipelines.drive SETTINGS` with the state folder in $SPC_STATE; the last line printed is a JSON object.
"""

import json
import sys
import time

from pipelines.environment import prepare


def main() -> None:
    """Run once with the settings of the first argument over the defaults."""
    state = prepare()
    from zenml.client import Client

    from pipelines.run import run_pipeline
    from tests.pipelines.small import small

    settings = {"count": 6, "comment": "", "weight": 1, **json.loads(sys.argv[1])}
    began = time.perf_counter()
    finished = run_pipeline(small, {"settings": settings}, stack="local", state=state)
    run = Client().get_pipeline_run(finished.run.id)
    summary = {
        "run": run.name,
        "mlflow_run": finished.mlflow_run,
        "steps": {name: step.status.value for name, step in run.steps.items()},
        "outputs": {name: str(step.output.load()) for name, step in run.steps.items()},
        "seconds": time.perf_counter() - began,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
