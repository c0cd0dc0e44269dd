"""Stage I, Artist: flow matching on pairs with task prompts."""

from pathlib import Path
from typing import Annotated, Any

from steps.folders import checkpoint_folder, output_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def train_artist(pairs: Path, data_revision: str, settings: dict[str, Any]) -> Annotated[Path, "artist_adapter"]:
    """The Artist's PEFT adapter."""
    from components.training.artist_sft import ArtistSftSettings
    from components.training.artist_sft import train_artist as train
    from components.training.launch import launch
    from steps.lineage import data_folder

    with tracked(settings) as tracker:
        out = output_folder() / "adapter"
        launch(
            train,
            settings=ArtistSftSettings.model_validate(settings),
            tracker=tracker,
            base=data_folder(data_revision) / "base",
            pairs_dir=pairs,
            out=out,
            checkpoints=checkpoint_folder(),
        )
        tracker.artifact(out, "adapter")
        return out
