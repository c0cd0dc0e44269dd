"""Ablate: the variants of stage III on the same held-out photos, as a table with intervals and reward curves."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

from steps.curves import REINFORCE, reward_curves
from steps.folders import output_folder
from steps.stage import stage
from steps.tables import log_tables
from steps.tracking import tracked

REINFORCE_WITHOUT_PHOTOMETRIC = "reinforce_without_photometric"
"""Name of the second reinforcement in a pipeline."""


@stage
def ablate(
    stage_two_critic: Path,
    stage_two_artist: Path,
    partial_critic: Path,
    partial_artist: Path,
    full_critic: Path,
    full_artist: Path,
    manifest: Path,
    data_revision: str,
    settings: dict[str, Any],
) -> Annotated[Path, "ablation"]:
    """`tables.json`, `tables.parquet`, `tables.html` and `tables.md` of the three variants.

    Args:
        stage_two_critic, stage_two_artist: the adapters that both reinforcements began from.
        partial_critic, partial_artist: reinforced without r_photo.
        full_critic, full_artist: reinforced by all rewards.
        settings: of `components.evaluation.records.EvaluationSettings`.
    """
    from components.data.records import read_manifest
    from components.evaluation.ablation import FULL, NO_PHOTOMETRIC, NO_RL, make_ablation
    from components.evaluation.records import EvaluationSettings
    from components.inference.enhancer import Enhancer
    from steps.lineage import data_folder

    with tracked({"ablation": settings}) as tracker:
        data, out = data_folder(data_revision), output_folder() / "ablation"
        checked = EvaluationSettings.model_validate(settings)

        def load(critic: Path, artist: Path) -> Enhancer:
            placement = checked.tables.compute.place()
            return Enhancer.from_parts(data / "base", critic, artist, checked.enhancer, placement)

        variants = {
            NO_RL: (partial(load, stage_two_critic, stage_two_artist), "stage II, without reinforcement"),
            NO_PHOTOMETRIC: (
                partial(load, partial_critic, partial_artist),
                "stage III from the same stage II; in the Artist's reward r_perc has the weight of r_photo as well",
            ),
            FULL: (partial(load, full_critic, full_artist), "stage III as it ships"),
        }
        curves = {FULL: reward_curves(REINFORCE), NO_PHOTOMETRIC: reward_curves(REINFORCE_WITHOUT_PHOTOMETRIC)}
        photos = read_manifest(manifest)
        tables, differences = make_ablation(
            variants, curves, photos, data / "photos", data / "base", out, checked.tables
        )
        log_tables(tracker, tables, out)
        tracker.metrics({f"full-{item.reference}/{item.measure}": item.change.value for item in differences}, 0)
        return out
