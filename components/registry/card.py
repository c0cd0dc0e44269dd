"""The model card of a package: what it is, how good it is on held-out photos, where it comes from, where it fails."""

from collections import Counter

from components.data.records import Manifest
from components.evaluation.records import Evaluation
from components.metrics.full_reference import UNITS
from components.metrics.tables import Interval
from components.models.package import Provenance

_MEASURES = ("ciede2000", "lpips", "psnr", "ssim")


def model_card(evaluation: Evaluation, manifest: Manifest, provenance: Provenance) -> str:
    """Markdown for people: use, held-out figures with 95% intervals, data with licences, provenance and limits."""
    critic = evaluation.critic
    return "\n".join(
        [
            "# SmartPhotoCrafter",
            "",
            "An Image Critic that judges a photo in words and a Photographic Artist that edits it accordingly, without",
            "instructions by a person. Load it with `components.inference.enhancer.Enhancer.load`, or serve the",
            "registered version with MLflow.",
            "",
            f"## Held-out figures: {evaluation.photos} photos, {evaluation.cases} faulty views",
            "",
            f"Held-out set {evaluation.held_out or 'unknown'}; intervals are bootstrap over photos.",
            "",
            *_table(evaluation),
            "",
            f"- Colour error after enhancement, as a share of the input's: {_text(evaluation.ratio_to_input)}; as a",
            f"  share of the best classical baseline's ({evaluation.best_baseline}): "
            f"{_text(evaluation.ratio_to_best_baseline)}",
            f"- Change of photos without a fault: {_text(evaluation.change_of_intact)} ΔE00",
            f"- Critic: {critic.parse_rate.value:.0%} of outputs parse; direction right for "
            f"{_text(critic.direction_accuracy)} of {critic.faults} faults; rank correlation of score and severity "
            f"{critic.score_correlation:.2f} ({critic.score_correlation_low:.2f} to "
            f"{critic.score_correlation_high:.2f})",
            "",
            "## Data",
            "",
            *_data(manifest),
            "",
            "## Provenance",
            "",
            f"- data revision (DVC) {provenance.data_revision}",
            f"- code revision (git) {provenance.code_revision}",
            f"- pipeline run {provenance.pipeline_run}",
            "",
            "## Limits",
            "",
            "- Figures hold for synthetic faults of exposure, contrast, saturation and white balance on photos like",
            "  those above; other faults and other kinds of pictures were not measured.",
            "- The score ranks faulty views; it is not calibrated against human opinion.",
            "- Every figure rests on few photos: read the intervals, not the means.",
            "",
        ]
    )


def _table(evaluation: Evaluation) -> list[str]:
    heads = [f"{name} ({UNITS[name]})" if UNITS[name] else name for name in _MEASURES]
    lines = [f"| method | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    for row in evaluation.rows:
        lines.append(f"| {row.method} | {' | '.join(_text(row.measures[name]) for name in _MEASURES)} |")
    return lines


def _data(manifest: Manifest) -> list[str]:
    splits = Counter(record.split for record in manifest)
    licences = Counter(record.licence or "unknown" for record in manifest)
    return [
        f"- {len(manifest)} photos: {', '.join(f'{count} {split}' for split, count in sorted(splits.items()))}; "
        f"{len(manifest.quarantine)} files quarantined",
        f"- licences: {', '.join(f'{name} ({count})' for name, count in licences.most_common())}",
    ]


def _text(interval: Interval) -> str:
    return f"{interval.value:.3g} ({interval.low:.3g} to {interval.high:.3g})"
