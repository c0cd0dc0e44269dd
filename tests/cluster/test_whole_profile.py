"""The laptop profile as it is, in pods: the repository's own photos, models and gate, and every stage in its own pod.

The other tests of pipelines make do with a handful of photos; what they promoted is the champion that this run has to
beat. It takes as long as `make pipeline` takes anywhere, and comes last. On a real cluster as well as on the emulated
one: see tests/cluster/test_pipeline.py.
"""

import re
from typing import NamedTuple

import pytest
from mlflow import MlflowClient

from components.data.versioning import data_revision, dvc_checkout
from components.evaluation.records import Evaluation, read_evaluation
from components.metrics.tables import INTACT_CHANGE
from components.registry.promotion import GateSettings
from pipelines.environment import ROOT
from steps.registry import CHAMPION, MODEL
from tests.cluster.site import Outcome, Site, Trained, whole_project
from tests.cluster.test_pipeline import STAGES

pytestmark = pytest.mark.cluster


class Run(NamedTuple):
    """The run, by the project it was submitted from and the pods and versions there were before."""

    site: Site
    outcome: Outcome
    pods_before: set[str]
    champion_before: str


@pytest.fixture(scope="module")
def profile(site: Site, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Run:
    assert trained.code == 0, trained.output[-6000:]
    project = whole_project(tmp_path_factory.mktemp("whole"))
    dvc_checkout(project)
    here = site.of(project)
    before = {pod.metadata.name for stage in STAGES for pod in here.pods(stage)}
    champion = MlflowClient(site.mlflow).get_model_version_by_alias(MODEL, CHAMPION).version
    return Run(here, here.run("run", "--stack", "kubernetes"), before, champion)


@pytest.fixture(scope="module")
def evaluation(profile: Run) -> Evaluation:
    """What the run says of its own model."""
    return read_evaluation(profile.site.project / "reports" / "latest")


def test_it_completes_with_every_stage_in_a_pod_of_its_own(profile: Run) -> None:
    assert profile.outcome.code == 0, profile.outcome.output[-6000:]
    assert f"({len(STAGES)} steps, 0 from the cache)" in profile.outcome.output
    for stage in STAGES:
        pods = [pod for pod in profile.site.pods(stage) if pod.metadata.name not in profile.pods_before]
        assert [pod.status.phase for pod in pods] == ["Succeeded"], stage


def test_its_model_beats_what_needs_no_training_on_photos_it_has_not_seen(evaluation: Evaluation) -> None:
    """Of each family of faults less is left than the best classical correction leaves, and good photos stay good."""
    for figures in evaluation.families:
        assert figures.ratio_to_input.value < figures.baseline_ratio_to_input.value, figures
    assert evaluation.change_of_intact.value < GateSettings().limits[INTACT_CHANGE]


def test_its_model_is_judged_against_the_champion_before(profile: Run, evaluation: Evaluation) -> None:
    """It is surely better than a model that trained for seconds; the gate may still find fault with one measure."""
    client = MlflowClient(profile.site.mlflow)
    version = max(client.search_model_versions(f"name = '{MODEL}'"), key=lambda version: int(version.version))
    assert int(version.version) > int(profile.champion_before)
    assert f"compared with the champion, version {profile.champion_before}" in version.description
    assert re.search(r"^- ciede2000 .*: surely better$", version.description, re.MULTILINE)
    champion = client.get_model_version_by_alias(MODEL, CHAMPION).version
    promoted = version.description.startswith("Promoted to champion")
    assert champion == (version.version if promoted else profile.champion_before)
    assert version.tags["data_revision"] == data_revision(ROOT)
    (run,) = client.search_runs(
        [client.get_experiment_by_name("smartphotocrafter").experiment_id],
        "attributes.run_name = 'evaluate'",
        max_results=1,
    )
    assert run.data.metrics["ratio_to_input"] == evaluation.ratio_to_input.value
