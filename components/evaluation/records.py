"""Records of an evaluation that the evaluation writes and the report shows."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator
from torch import Tensor

from components.data.splits import Split
from components.evaluation.baselines import BASELINES, check_known
from components.evaluation.critic_accuracy import CriticFigures
from components.evaluation.tasks import PaperSettings
from components.inference.enhancer import EARLIER_NAME, EnhancerSettings
from components.metrics.tables import TABLE_FILE, BootstrapSettings, Interval, Row
from components.models.compute import ComputeSettings
from components.strict import Strict
from components.verdict.grammar import Verdict


class ReportSettings(Strict):
    """What the HTML report shows, and how large."""

    photos: int = Field(default=100, ge=0, description="Photos that are shown, the first ones.")
    picture_side: int = Field(default=480, ge=32, description="Longer side of the pictures in the report, pixels.")
    jpeg_quality: int = Field(default=82, ge=30, le=100, description="Of those pictures, libjpeg scale.")
    worst_cases: int = Field(default=6, ge=0, description="Cases with the largest error that are shown on their own.")


class EvaluationSettings(Strict):
    """On what, and against what, an enhancer is judged."""

    split: Split = Field(default="test", description="Split whose photos are evaluated.")
    views: int = Field(default=3, ge=1, description="Views of each photo with the project's own faults.")
    library_views: int = Field(
        default=3, ge=0, description="Views of each photo with faults that other people's code makes."
    )
    max_side: int = Field(default=512, ge=32, description="Photos are reduced to this longer side first. Pixels.")
    baselines: tuple[str, ...] = Field(default=tuple(BASELINES), description="Keys of the classical baselines.")
    seed: int = Field(default=0, ge=0, description="Of the faults and of the Artist's noise.")
    enhancer: EnhancerSettings = Field(
        default_factory=EnhancerSettings,
        description="How photos are enhanced; a package keeps the settings that it was judged with.",
    )
    compute: ComputeSettings = Field(default_factory=ComputeSettings)
    bootstrap: BootstrapSettings = Field(default_factory=BootstrapSettings)
    report: ReportSettings = Field(default_factory=ReportSettings)
    tables: PaperSettings = Field(
        default_factory=PaperSettings, description="The paper's tables, as `make tables` makes them."
    )

    @field_validator("baselines")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError(f"expected at least one baseline of {', '.join(BASELINES)}")
        return check_known(names)


class FamilyFigures(Strict):
    """What is left of the faults of one family, as a share of the input's CIEDE2000."""

    family: str
    cases: int
    ratio_to_input: Interval
    baseline_ratio_to_input: Interval = Field(description="The same for the best baseline of all faulty views.")
    by_size: dict[str, Interval] = Field(description="The same by the CIEDE2000 of the input.")


class Evaluation(Strict):
    """What was measured; `table.json`."""

    photos: int
    cases: int = Field(description="Faulty views of all photos, of both families.")
    held_out: str | None = Field(
        default=None, description="Digest of the held-out set: equal for evaluations that can be compared."
    )
    settings: EvaluationSettings
    rows: tuple[Row, ...] = Field(description="The input, the enhancer and the baselines.")
    ratio_to_input: Interval = Field(description="CIEDE2000 of the enhancer over that of the faulty input.")
    best_baseline: str = Field(description="The baseline with the lowest CIEDE2000.")
    ratio_to_best_baseline: Interval = Field(description="CIEDE2000 of the enhancer over that of the best baseline.")
    families: tuple[FamilyFigures, ...] = Field(default=(), description="The same for each family of faults.")
    change_of_intact: Interval = Field(description="CIEDE2000 by which the enhancer changes photos that have no fault.")
    intact_changed_visibly: float = Field(
        default=math.nan, description="Share of the photos without a fault that are changed by a CIEDE2000 above 2."
    )
    critic: CriticFigures


def read_evaluation(folder: Path) -> Evaluation:
    """The record that an evaluation wrote into ``folder``.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(folder) / TABLE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the record of an evaluation; run the evaluation first")
    content = json.loads(path.read_text(encoding="utf-8"))
    if EARLIER_NAME in content["settings"]:
        content["settings"]["enhancer"] = content["settings"].pop(EARLIER_NAME)
    return Evaluation.model_validate_json(json.dumps(content))


@dataclass(frozen=True)
class Picture:
    """One case to look at.

    Attributes:
        faults: what was done to the original, each in a few words.
        original, faulty, enhanced: (3, H, W) in [0, 1].
        text: what the Critic wrote about the faulty picture; ``verdict`` is it parsed, or None.
        input_error, error: mean CIEDE2000 to the original, before and after.
        credit: author and licence of the photo, as the licence asks to be shown.
    """

    photo_id: str
    view: int
    faults: tuple[str, ...]
    original: Tensor
    faulty: Tensor
    enhanced: Tensor
    text: str
    verdict: Verdict | None
    input_error: float
    error: float
    credit: str
