"""Evaluate: the trained models, packaged as they would ship, on held-out photos beside the classical baselines."""

from pathlib import Path
from typing import Annotated, Any

from zenml import get_step_context

from steps.curves import reward_curves
from steps.folders import output_folder
from steps.lineage import lineage
from steps.stage import stage
from steps.tracking import tracked


@stage
def evaluate(
    critic_adapter: Path, artist_adapter: Path, manifest: Path, data_revision: str, settings: dict[str, Any]
) -> tuple[Annotated[Path, "package"], Annotated[Path, "evaluation"]]:
    """The package of base models, adapters, model card and held-out tables; and the tables with the HTML report."""
    from components.data.records import read_manifest
    from components.evaluation.evaluate import evaluate_enhancer
    from components.evaluation.records import EvaluationSettings
    from components.inference.enhancer import Enhancer
    from components.models.package import Provenance, write_package
    from components.registry.card import model_card
    from steps.lineage import data_folder

    with tracked() as tracker:
        data, out = data_folder(data_revision), output_folder()
        photos = read_manifest(manifest)
        checked = EvaluationSettings.model_validate(settings)
        placement = checked.compute.place()
        evaluation = evaluate_enhancer(
            Enhancer.from_parts(data / "base", critic_adapter, artist_adapter, placement=placement),
            photos,
            data / "photos",
            data / "base",
            out / "evaluation",
            checked,
            tracker,
            reward_curves(),
        )
        provenance = Provenance(
            data_revision=data_revision,
            code_revision=lineage()["git.revision"],
            pipeline_run=get_step_context().pipeline_run.name,
        )
        write_package(
            out / "package",
            base=data / "base",
            critic_adapter=critic_adapter,
            artist_adapter=artist_adapter,
            provenance=provenance,
            model_card=model_card(evaluation, photos, provenance),
            evaluation=out / "evaluation",
        )
        return out / "package", out / "evaluation"
