"""Stage III: GRPO for the Critic and DiffusionNFT for the Artist in one loop over the same photos."""

from pathlib import Path
from typing import Annotated, Any

from steps.folders import checkpoint_folder, output_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def reinforce(
    critic_adapter: Path, artist_adapter: Path, pairs: Path, data_revision: str, settings: dict[str, Any]
) -> tuple[Annotated[Path, "reinforced_critic_adapter"], Annotated[Path, "reinforced_artist_adapter"]]:
    """The PEFT adapters of the Critic and the Artist after coordinated reinforcement learning."""
    from components.training.coordinated import ReinforceSettings
    from components.training.coordinated import reinforce as train
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
