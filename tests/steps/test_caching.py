"""A manifest that lacks what could not be read is not taken from the cache: the next run makes it anew."""

from pathlib import Path
from typing import Any

import pytest
from zenml import pipeline
from zenml.client import Client

from components.imaging.photo import Photo, write_photo
from pipelines.environment import State
from pipelines.run import run_pipeline
from steps.ingest import ingest
from steps.lineage import lineage
from tests.conftest import make_photo


@pipeline(name="only_ingest")
def only_ingest(data_revision: str, settings: dict[str, Any]) -> None:
    """Nothing but ingest; no file is ever touched."""
    ingest(data_revision, "untouched", settings)


@pytest.mark.slow
def test_what_could_not_be_read_is_looked_at_by_the_next_run(state: State, tmp_path: Path) -> None:
    for number in range(2):
        write_photo(Photo(make_photo(64, 64, seed=number)), tmp_path / "photos" / f"{number}.jpg")
    away = tmp_path / "photos" / "away.jpg"
    away.symlink_to("/proc/self/mem")  # EIO
    root = str(tmp_path / "photos")
    source = {"name": "single_folder", "root": root, "options": {"licence": "CC0-1.0"}}
    parameters = {"data_revision": lineage()["dvc.revision"], "settings": {"sources": [source]}}

    def ingested() -> tuple[str, str]:
        finished = run_pipeline(only_ingest, parameters, stack="local", state=state)
        step = Client().get_pipeline_run(finished.run.id).steps["ingest"]
        return step.status.value, (step.output.load() / "quarantine.jsonl").read_text()

    status, quarantine = ingested()
    assert status == "completed" and "not read this time: Input/output error" in quarantine
    away.unlink()
    write_photo(Photo(make_photo(64, 64, seed=7)), away)
    status, quarantine = ingested()
    assert status == "completed" and "away.jpg" not in quarantine
