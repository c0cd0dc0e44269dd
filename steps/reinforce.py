"""Stage III: GRPO for the Critic and DiffusionNFT for the Artist in one loop over the same photos.

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
def reinforce(
    critic_adapter: Path, artist_adapter: Path, pairs: Path, data_revision: str, settings: dict[str, Any]
) -> tuple[Annotated[Path, "reinforced_critic_adapter"], Annotated[Path, "reinforced_artist_adapter"]]:
    """The PEFT adapters of the Critic and the Artist after coordinated reinforcement learning."""
    from components.reinforcement.coordinated import reinforce as train
    from components.reinforcement.settings import ReinforceSettings
    from components.training.launch import launch
    from steps.lineage import data_folder

    with tracked(settings) as tracker:
        out = output_folder() / "adapters"
        launch(
            train,
            settings=ReinforceSettings.model_validate(settings),
            tracker=tracker,
            base=data_folder(data_revision) / "base",
            critic_adapter=critic_adapter,
            artist_adapter=artist_adapter,
            pairs_dir=pairs,
            out=out,
            checkpoints=checkpoint_folder(),
        )
        tracker.artifact(out, "adapters")
        return out / "critic", out / "artist"


@preparation
def prepare_reinforce(
    critic_adapter: UnmaterializedArtifact,
    artist_adapter: UnmaterializedArtifact,
    pairs: UnmaterializedArtifact,
    data_revision: str,
    settings: dict[str, Any],
) -> Annotated[str, "reinforce_job"]:
    """The folder of the job, on the volume that the pods of the stage share."""
    from components.reinforcement.settings import ReinforceSettings

    with tracked():
        checked = ReinforceSettings.model_validate(settings).model_dump(mode="json")
        adapters = {"critic_adapter": critic_adapter, "artist_adapter": artist_adapter}
        return hand_over("reinforce", checked, data_revision, pairs_dir=pairs, **adapters)


@stage
def follow_reinforce(
    job: str, settings: dict[str, Any]
) -> tuple[Annotated[Path, "reinforced_critic_adapter"], Annotated[Path, "reinforced_artist_adapter"]]:
    """Both adapters, once the pods have trained them; meanwhile what they report goes to MLflow."""
    from components.training.nodes import follow

    with tracked(settings) as tracker:
        out = follow(Path(job), tracker).out
        tracker.artifact(out, "adapters")
        return out / "critic", out / "artist"
