"""Prepares stage II for several nodes where there is one, so that what the pods would find can be looked at."""

from pathlib import Path
from typing import Annotated, Any

from zenml import pipeline

from steps.adapt_artist import follow_adapt_artist, prepare_adapt_artist
from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import tracked

NAMES = ("critic", "artist", "pairs")


@stage
def invent() -> tuple[Annotated[Path, "critic"], Annotated[Path, "artist"], Annotated[Path, "pairs"]]:
    """A folder each, with a file that says its name."""
    with tracked():
        out = output_folder()
        for name in NAMES:
            (out / name).mkdir()
            (out / name / "name.txt").write_text(name)
        return out / "critic", out / "artist", out / "pairs"


@pipeline(name="prepared")
def prepared(settings: dict[str, Any], data_revision: str, follow: bool) -> None:
    """invent -> prepare_adapt_artist, and if wanted what follows the pods."""
    job = prepare_adapt_artist(*invent(), data_revision, settings["adapt_artist"])
    if follow:
        follow_adapt_artist(job, settings["adapt_artist"])
