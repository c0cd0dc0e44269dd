"""Gather annotations: those of all shards in one folder, as if they had never been apart."""

from pathlib import Path
from typing import Annotated

from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def gather_annotations(manifest: Path, parts: list[Path]) -> Annotated[Path, "annotations"]:
    """The folder that one step would have made of the whole manifest, byte for byte."""
    from components.annotation.annotations import merge_annotations
    from components.data.records import read_manifest

    with tracked() as tracker:
        out = output_folder()
        counts = merge_annotations(read_manifest(manifest), parts, out)
        tracker.metrics({name: float(count) for name, count in counts.items()}, 0)
        return out
