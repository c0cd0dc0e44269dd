"""Stage II: the Artist learns to follow the Critic's hidden states instead of task prompts."""

from pathlib import Path
from typing import Annotated, Any

from steps.folders import checkpoint_folder, output_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def adapt_artist(
    critic_adapter: Path, artist_adapter: Path, pairs: Path, data_revision: str, settings: dict[str, Any]
) -> Annotated[Path, "adapted_artist_adapter"]:
    """The Artist's PEFT adapter, conditioned on the Critic's reasoning."""
    from components.artist.sft import ArtistSftSettings
    from components.artist.sft import adapt_artist as adapt
    from components.training.launch import launch
    from steps.lineage import data_folder

    with tracked(settings) as tracker:
        out = output_folder() / "adapter"
        launch(
            adapt,
            settings=ArtistSftSettings.model_validate(settings),
            tracker=tracker,
            base=data_folder(data_revision) / "base",
            critic_adapter=critic_adapter,
            artist_adapter=artist_adapter,
            pairs_dir=pairs,
            out=out,
            checkpoints=checkpoint_folder(),
        )
        tracker.artifact(out, "adapter")
        return out
