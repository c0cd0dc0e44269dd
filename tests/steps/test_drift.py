"""The step finds the report of the data version before among those that were stored."""

from pathlib import Path
from typing import Annotated

import pytest
from zenml import pipeline, step

import steps.directories  # noqa: F401  folders as artifacts
from components.data.drift import DriftSettings, profile, write_profile
from components.data.records import Manifest
from steps.drift import ARTIFACT, profile_before


@step(enable_cache=False)
def kept(folder: str) -> Annotated[Path, ARTIFACT]:
    return Path(folder)


@pipeline(enable_cache=False)
def keep(folder: str) -> None:
    kept(folder)


@pytest.mark.slow
def test_the_newest_report_of_another_revision_is_found(state, tmp_path: Path) -> None:
    assert profile_before("first") is None
    frame = profile(Manifest.of([]), tmp_path, DriftSettings())
    for revision in ("first", "second"):
        write_profile(frame, tmp_path / revision, revision)
        keep(str(tmp_path / revision))
    found = {name: profile_before(name) for name in ("first", "second", "third")}
    assert found["first"] == found["third"] != found["second"]
    assert (found["second"] / "profile.parquet").read_bytes() == (tmp_path / "first/profile.parquet").read_bytes()
