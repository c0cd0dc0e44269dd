"""What the reinforcement of this pipeline run reported: its curves out of MLflow, also where it came from the cache."""

import mlflow
from zenml import get_step_context

from steps.tracking import STEP_RUN_TAG

REINFORCE = "reinforce"
_TITLES = {
    "reinforce/artist/reward_total": "Artist, r_PA",
    "reinforce/artist/reward_compliance": "Artist, r_comp",
    "reinforce/artist/reward_photometric": "Artist, r_photo",
    "reinforce/artist/reward_perceptual": "Artist, r_perc",
    "reinforce/critic/reward": "Critic, total",
}


def reward_curves(step: str = REINFORCE) -> dict[str, list[tuple[int, float]]]:
    """(iteration, value) of every reward that ``step``, before the running step, reported, by name.

    Empty where no such step belongs to the pipeline run.
    """
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
            curves[_TITLES.get(name, _title(name))] = [(metric.step, metric.value) for metric in history]
    return curves


def _title(name: str) -> str:
    """ "reinforce/critic/reward_format" -> "Critic, format"."""
    module, _, reward = name.removeprefix(f"{REINFORCE}/").partition("/")
    return f"{module.capitalize()}, {reward.removeprefix('reward_').replace('_', ' ')}"
