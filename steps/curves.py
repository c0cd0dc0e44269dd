"""What the reinforcement of this pipeline run reported: its curves out of MLflow, also where it came from the cache."""

import mlflow
from zenml import get_step_context

from steps.tracking import STEP_RUN_TAG

REINFORCE = "reinforce"


def reward_curves(step: str = REINFORCE) -> dict[str, list[tuple[int, float]]]:
    """(iteration, value) of every reward that ``step``, before the running step, reported, by name.

    Empty where no such step belongs to the pipeline run.
    """
    from components.reinforcement.rewards.curves import CURVE_TITLES

    steps = get_step_context().pipeline_run.steps
    if step not in steps:
        return {}
    step_run = steps[step]
    client = mlflow.MlflowClient()
    identifier = step_run.original_step_run_id or step_run.id
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`{STEP_RUN_TAG}` = '{identifier}'", max_results=1)
    if not runs:
        return {}
    curves = {}
    for name in sorted(runs[0].data.metrics):
        if name.startswith(f"{REINFORCE}/") and "reward" in name:
            history = client.get_metric_history(runs[0].info.run_id, name)
            short = name.removeprefix(f"{REINFORCE}/")
            curves[CURVE_TITLES.get(short) or _title(short)] = [(metric.step, metric.value) for metric in history]
    return curves


def _title(name: str) -> str:
    """Of what is no reward itself: "critic/reward_deviation" -> "Critic, deviation"."""
    module, _, reward = name.partition("/")
    return f"{module.capitalize()}, {reward.removeprefix('reward_').replace('_', ' ')}"
