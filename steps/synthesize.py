"""Synthesize: pairs of an input and the picture it should become, with every operation and seed recorded."""

from pathlib import Path
from typing import Annotated, Any

from steps.folders import checkpoint_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def synthesize(manifest: Path, data_revision: str, settings: dict[str, Any]) -> Annotated[Path, "pairs"]:
    """A folder of WebDataset shards; shards that a killed attempt completed are kept."""
    from components.data.records import read_manifest
    from components.data.synthesis import SynthesisSettings
    from components.data.synthesis import synthesize as make_pairs
    from steps.lineage import data_folder

    with tracked(settings) as tracker:
        out = checkpoint_folder() / "pairs"
        counts = make_pairs(
            read_manifest(manifest),
            data_folder(data_revision) / "photos",
            out,
            SynthesisSettings.model_validate(settings),
        )
        tracker.metrics({f"pairs/{name}": float(count) for name, count in counts.items()}, 0)
        return out
