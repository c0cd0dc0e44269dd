"""Training over shards: the data of one step for all, only what changed done again, a nested MLflow run for each."""

from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest
from mlflow.entities import Run
from zenml.client import Client

from components.annotation.annotations import REPORT_FILE, AnnotationSettings, annotate
from components.annotation.annotators import OfflineAnnotator
from components.data.partition import shard_of
from components.data.records import read_manifest
from components.data.synthesis import SynthesisSettings, synthesize
from components.data.versioning import data_revision
from components.verdict.grammar import Verdict, render, suggest
from pipelines.environment import ROOT, State
from pipelines.run import run_pipeline
from steps.directories import content_hash
from tests.chat.serving import ModelServer
from tests.pipelines.sharded import sharded

pytestmark = pytest.mark.slow

SHARDS, PHOTOS = 2, 5
NONE = dict.fromkeys(("retouching", "restoration", "multi_edit", "depth_of_field", "enhancement"), 0)
SETTINGS = {
    "scale_out": {"shards": SHARDS},
    "annotate": AnnotationSettings(short_side=16, faulty_views=1).model_dump(mode="json"),
    "synthesize": SynthesisSettings(**NONE | {"retouching": 1}, short_side=16).model_dump(mode="json"),
}
NAMES = sorted(path.name for path in (ROOT / "data" / "photos").glob("*.jpg"))[:PHOTOS]
LISTING = {name: f"{number:064x}" for number, name in enumerate(NAMES)}
NUMBERS = sorted({shard_of(f"sample/{name}", SHARDS) for name in NAMES})


class Outcome(NamedTuple):
    """A finished run over shards."""

    ran: set[str]
    """Steps that did not come from the cache."""
    outputs: dict[str, Path]
    children: dict[str, Run]


def run_sharded(state: State, listing: dict[str, str], revision: str, settings: dict[str, Any] = SETTINGS) -> Outcome:
    parameters: dict[str, Any] = {"listing": listing, "data_revision": revision, "settings": settings}
    finished = run_pipeline(sharded, parameters, stack="local", state=state)
    run = Client().get_pipeline_run(finished.run.id)
    assert run.status.value == "completed"
    client = mlflow.MlflowClient(state.tracking_uri)
    experiment = client.get_run(finished.mlflow_run).info.experiment_id
    found = client.search_runs([experiment], f"tags.mlflow.parentRunId = '{finished.mlflow_run}'")
    assert all(child.info.status == "FINISHED" for child in found)
    return Outcome(
        ran={name for name, step in run.steps.items() if step.status.value != "cached"},
        outputs={name: run.steps[name].output.load() for name in ("list_photos", "annotate", "synthesize")},
        children={child.info.run_name: child for child in found},
    )


@pytest.fixture(scope="module")
def first(state: State) -> Outcome:
    return run_sharded(state, LISTING, data_revision(ROOT))


def steps_of(numbers: list[int]) -> set[str]:
    return {f"{stage}-{number}" for stage in ("annotate", "synthesize") for number in numbers}


def test_the_results_are_those_of_one_step_for_all_photos(first: Outcome, tmp_path: Path) -> None:
    assert first.ran == {"list_photos", "partition", "annotate", "synthesize"} | steps_of(NUMBERS)
    assert len(NUMBERS) > 1
    manifest, photos = read_manifest(first.outputs["list_photos"]), ROOT / "data" / "photos"
    settings = AnnotationSettings.model_validate(SETTINGS["annotate"])
    annotate(manifest, photos, tmp_path / "annotations", settings, OfflineAnnotator())
    (tmp_path / "annotations" / REPORT_FILE).unlink()
    assert content_hash(first.outputs["annotate"]) == content_hash(tmp_path / "annotations")
    synthesize(manifest, photos, tmp_path / "pairs", SynthesisSettings.model_validate(SETTINGS["synthesize"]))
    assert content_hash(first.outputs["synthesize"]) == content_hash(tmp_path / "pairs")


def test_each_shard_has_a_nested_run_of_its_name(first: Outcome) -> None:
    assert set(first.children) == first.ran
    annotated = {number: first.children[f"annotate-{number}"].data.metrics["annotated"] for number in NUMBERS}
    sizes = first.children["partition"].data.metrics
    assert annotated == {number: 2 * sizes[f"photos/{number}"] for number in NUMBERS}
    assert first.children["annotate"].data.metrics["annotated"] == sum(annotated.values()) == 2 * PHOTOS
    assert first.children["synthesize"].data.metrics["pairs/train/retouching"] == PHOTOS


def test_what_did_not_change_is_not_done_again(state: State, first: Outcome) -> None:
    again = run_sharded(state, LISTING, data_revision(ROOT))
    assert again.ran == set()
    assert again.outputs == first.outputs
    moved = run_sharded(state, LISTING, "another-revision.dir")  # as when a file beside the photos changed
    assert moved.ran == {"partition", "synthesize"}, "no shard"
    changed = run_sharded(state, LISTING | {NAMES[0]: "f" * 64}, data_revision(ROOT))
    touched = [shard_of(f"sample/{NAMES[0]}", SHARDS)]
    assert changed.ran == {"list_photos", "partition", "annotate", "synthesize"} | steps_of(touched)
    assert changed.children[f"annotate-{touched[0]}"].data.tags["cached"] == "no"


def test_with_another_number_of_shards_no_answer_is_asked_for_again(state: State, first: Outcome) -> None:
    verdict = render(Verdict(reasoning=("noise",) * 5, suggestions=(suggest("exposure", 0.5),), score=42.0))
    with ModelServer(lambda picture, before: (200, verdict)).running() as server:
        client = {"base_url": server.base_url, "model": "m"}
        asking = AnnotationSettings(short_side=16, faulty_views=0, annotator="openai", client=client)
        for shards in (SHARDS, SHARDS + 1):
            settings = SETTINGS | {"scale_out": {"shards": shards}, "annotate": asking.model_dump(mode="json")}
            outcome = run_sharded(state, LISTING, data_revision(ROOT), settings)
            assert outcome.children["annotate"].data.metrics["annotated"] == PHOTOS
    assert len(server.asked) == sum(server.asked.values()) == PHOTOS
    numbers = {shard_of(f"sample/{name}", shards) for name in NAMES for shards in (SHARDS, SHARDS + 1)}
    assert {path.name for path in (state.folder / "answers").iterdir()} == {f"annotate-{n}.jsonl" for n in numbers}
