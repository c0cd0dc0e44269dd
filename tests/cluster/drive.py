"""Submits the small pipeline to the stack `kubernetes` in a process of its own: ZenML reads its environment once.

`python -m tests.cluster.drive SETTINGS` after a training run has completed; the last line printed is a JSON object.
"""

import json
import os
import sys

from pipelines.environment import ROOT, Server, prepare


def main() -> None:
    """Run once with the settings of the first argument over the defaults: count, pause, name, and the crafter's."""
    state = prepare(Server("kubernetes", os.environ["SPC_ZENML_URL"], os.environ["SPC_ZENML_API_KEY"]))
    from zenml.client import Client

    from components.data.versioning import data_revision
    from pipelines.configuration import checked_settings
    from pipelines.run import run_pipeline
    from tests.cluster.graph import placed

    wanted = {"count": 6, "pause": 0.0, "name": "", "crafter": {}, **json.loads(sys.argv[1])}
    settings = checked_settings(ROOT / "configs" / "small.yaml", [], state)
    settings["evaluate"]["crafter"] |= wanted.pop("crafter")
    trained = Client().list_pipeline_runs(
        pipeline_name="training", status="completed", sort_by="desc:created", size=1, hydrate=True
    )[0]
    parameters = {
        "counting": wanted,
        "package": str(trained.steps["evaluate"].outputs["package"][0].id),
        "manifest": str(trained.steps["validate"].outputs["validated_manifest"][0].id),
        "data_revision": data_revision(ROOT),
        "settings": {name: settings[name] for name in ("gate", "evaluate")},
    }
    finished = run_pipeline(placed, parameters, stack="kubernetes", state=state)
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
