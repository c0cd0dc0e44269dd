"""Stage II: the Artist learns to follow the Critic's hidden states instead of task prompts.

On several nodes (pipelines/nodes.py) two steps take the place of the first one, with the pods between them.
"""

from pathlib import Path
from typing import Annotated, Any

from zenml.artifacts.unmaterialized_artifact import UnmaterializedArtifact

from steps.folders import checkpoint_folder, output_folder
from steps.nodes import hand_over, preparation
from steps.stage import stage
from steps.tracking import tracked


@stage
def adapt_artist(
    critic_adapter: Path, artist_adapter: Path, pairs: Path, data_revision: str, settings: dict[str, Any]
) -> Annotated[Path, "adapted_artist_adapter"]:
    """The Artist's PEFT adapter, conditioned on the Critic's reasoning."""
    from components.training.artist_sft import ArtistSftSettings
    from components.training.artist_sft import adapt_artist as adapt
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


@preparation
def prepare_adapt_artist(
    critic_adapter: UnmaterializedArtifact,
    artist_adapter: UnmaterializedArtifact,
    pairs: UnmaterializedArtifact,
    data_revision: str,
    settings: dict[str, Any],
) -> Annotated[str, "adapt_artist_job"]:
    """The folder of the job, on the volume that the pods of the stage share."""
    from components.training.artist_sft import ArtistSftSettings

    with tracked():
        checked = ArtistSftSettings.model_validate(settings).model_dump(mode="json")
        adapters = {"critic_adapter": critic_adapter, "artist_adapter": artist_adapter}
        return hand_over("adapt_artist", checked, data_revision, pairs_dir=pairs, **adapters)


@stage
def follow_adapt_artist(job: str, settings: dict[str, Any]) -> Annotated[Path, "adapted_artist_adapter"]:
    """The adapter, once the pods have trained it; meanwhile what they report goes to MLflow."""
    from components.training.nodes import follow

    with tracked(settings) as tracker:
        out = follow(Path(job), tracker).out
        tracker.artifact(out, "adapter")
        return out
