"""Promote: register the package as a new version, and make it champion if it beats the present one."""

import logging
from pathlib import Path
from typing import Annotated, Any

from components.models.package import Package
from components.registry.decision import Decision
from steps import registry
from steps.champion import ChampionChanged, promote_version, taken_down
from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import MlflowTracker, tracked

log = logging.getLogger(__name__)


@stage
def promote(
    package: Path, manifest: Path, data_revision: str, gate: dict[str, Any], evaluation: dict[str, Any]
) -> Annotated[Decision, "decision"]:
    """Compare challenger and champion photo by photo on the same held-out cases and move the aliases accordingly.

    The champion is judged again here, enhancing as it does in use, by today's measures on today's held-out photos.
    Before there is a champion, the challenger has to beat the untouched input. Run again on the same package, nothing
    is registered twice. If another promotion comes in between, the challenger is compared with the new champion.
    """
    from components.evaluation.records import read_evaluation
    from components.metrics.tables import CASES_FILE, INPUT, gate_table, read_cases
    from components.models.package import read_package
    from components.registry.promotion import GateSettings, decide

    with tracked({"gate": gate}) as tracker:
        challenger = read_package(package)
        registered = registry.register_package(challenger, behaviour=evaluation["enhancer"])
        registry.set_alias(registry.CHALLENGER, registered.version)
        cases = read_cases(challenger.evaluation / CASES_FILE)
        judged = read_evaluation(challenger.evaluation)
        while True:
            champion = registry.champion_version()
            if champion is None:
                reference, name = gate_table(cases, INPUT), "the untouched input"
            elif champion == registered.version:
                reference, name = gate_table(cases), f"the champion, version {champion}, which is the same model"
            else:
                reference, name = _champion_table(champion, manifest, data_revision, evaluation, judged.held_out)
            decision = decide(gate_table(cases), reference, GateSettings.model_validate(gate), name)
            if decision.promoted and (when := taken_down(registered.version)):
                reason = f"version {registered.version} was rolled back by a person ({when})"
                decision = decision.model_copy(update={"promoted": False, "reasons": (reason, *decision.reasons)})
            try:
                if decision.promoted:
                    promote_version(registered.version, over=champion)
            except ChampionChanged as changed:
                log.info("%s", changed)
                continue
            _record(tracker, registered.version, decision, challenger)
            return decision


def _champion_table(
    version: str, manifest: Path, data_revision: str, settings: dict[str, Any], held_out: str | None
) -> tuple[Any, str]:
    """The measures of the champion on the held-out cases (a data frame), and what to call it.

    Raises:
        GateError: the challenger was judged on another held-out set (``held_out``) than there is now.
    """
    from components.data.records import read_manifest
    from components.evaluation.evaluate import evaluate_enhancer
    from components.evaluation.records import EvaluationSettings
    from components.inference.enhancer import Enhancer
    from components.metrics.tables import CASES_FILE, gate_table, read_cases
    from components.registry.promotion import GateError
    from components.training.tracker import NullTracker
    from steps.lineage import data_folder

    data, out = data_folder(data_revision), output_folder() / "champion"
    checked = EvaluationSettings.model_validate(settings)
    enhancer = Enhancer.load(registry.version_package(version).folder, placement=checked.compute.place())
    as_used = checked.model_copy(update={"enhancer": enhancer.settings})
    photos = read_manifest(manifest)
    judged = evaluate_enhancer(enhancer, photos, data / "photos", data / "base", out, as_used, NullTracker())
    if judged.held_out != held_out:
        raise GateError(
            f"the challenger was judged on the held-out set {held_out}, the champion on {judged.held_out}: run the "
            f"evaluation again"
        )
    return gate_table(read_cases(out / CASES_FILE)), f"the champion, version {version}"


def _record(tracker: MlflowTracker, version: str, decision: Decision, package: Package) -> None:
    verdict = "Promoted to champion" if decision.promoted else "Not promoted"
    reasons = [f"{verdict}, compared with {decision.reference} on {decision.photos} photos:", ""]
    registry.set_reasons(version, "\n".join([*reasons, *(f"- {reason}" for reason in decision.reasons)]), package)
    tracker.tags({"model.version": version, "model.promoted": "yes" if decision.promoted else "no"})
    changes = {f"change/{item.metric}": item.change for item in decision.comparisons}
    tracker.metrics({"promoted": float(decision.promoted), **changes}, 0)
