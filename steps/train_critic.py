"""Stage I, Critic: supervised fine-tuning on reasoning, suggestions and score."""

from pathlib import Path
from typing import Annotated, Any

from steps.folders import checkpoint_folder, output_folder
from steps.stage import stage
from steps.tracking import tracked


@stage
def train_critic(annotations: Path, data_revision: str, settings: dict[str, Any]) -> Annotated[Path, "critic_adapter"]:
    """The Critic's PEFT adapter."""
    from components.training.critic_sft import CriticSftSettings
    from components.training.critic_sft import train_critic as train
    from components.training.launch import launch
    from steps.lineage import data_folder

    with tracked(settings) as tracker:
        data, out = data_folder(data_revision), output_folder() / "adapter"
        launch(
            train,
            settings=CriticSftSettings.model_validate(settings),
            tracker=tracker,
            base=data / "base",
            annotations_dir=annotations,
            photos_dir=data / "photos",
            out=out,
            checkpoints=checkpoint_folder(),
        )
        tracker.artifact(out, "adapter")
        return out
