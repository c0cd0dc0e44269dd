"""Stages II and III after a step that stands for all before them: a graph to look at, not to run."""

from operator import call
from pathlib import Path
from typing import Annotated, Any

from zenml import pipeline, step

from pipelines.nodes import spread
from steps.adapt_artist import adapt_artist
from steps.reinforce import reinforce


@step
def make() -> tuple[Annotated[Path, "critic"], Annotated[Path, "artist"], Annotated[Path, "pairs"]]:
    """What the stages start from."""
    return Path(), Path(), Path()


@pipeline(name="refining")
def refining(settings: dict[str, Any]) -> None:
    """make -> adapt_artist -> reinforce."""
    start = spread(call)
    critic, artist, pairs = make()
    artist = start(adapt_artist, critic, artist, pairs, "d.dir", settings["adapt_artist"])
    start(reinforce, critic, artist, pairs, "d.dir", settings["reinforce"])
