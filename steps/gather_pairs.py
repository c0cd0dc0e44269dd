"""Gather pairs: those of all shards in one folder, as if they had never been apart."""

from pathlib import Path
from typing import Annotated, Any

from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def gather_pairs(
    manifest: Path, data_revision: str, parts: list[Path], settings: dict[str, Any]
) -> Annotated[Path, "pairs"]:
    """The folder of shards that one step would have made of the whole manifest, byte for byte."""
    from components.data.records import read_manifest
    from components.data.synthesis import SynthesisSettings, merge_pairs
    from steps.lineage import ROOT, data_folder

    with tracked(settings) as tracker:
        checked, out = SynthesisSettings.model_validate(settings), output_folder()
        data = data_folder(data_revision) if checked.learned_looks else ROOT / "data"  # looked at for these looks only
        counts = merge_pairs(read_manifest(manifest), data / "photos", parts, out, checked)
        tracker.metrics({f"pairs/{name}": float(count) for name, count in counts.items()}, 0)
        return out
