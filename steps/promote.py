"""Promote: register the package as a new version, and make it champion if it beats the present one."""

from pathlib import Path
from typing import Annotated, Any

from components.registry.promotion import Decision
from steps import registry
from steps.folders import output_folder
from steps.stage import stage
from steps.tracking import MlflowTracker, tracked


@stage
def promote(
    package: Path, manifest: Path, data_revision: str, gate: dict[str, Any], evaluation: dict[str, Any]
) -> Annotated[Decision, "decision"]:
    """Compare challenger and champion photo by photo on the same held-out cases and move the aliases accordingly.

    The champion is judged again here, enhancing as it does in use, by today's measures on today's held-out photos.
    Before there is a champion, the challenger has to beat the untouched input. Run again on the same package, nothing
    is registered twice.
    """
    from components.evaluation.tables import CASES_FILE, INPUT, gate_table, read_cases
    from components.registry.package import read_package
    from components.registry.promotion import GateSettings, decide

    with tracked({"gate": gate}) as tracker:
        challenger = read_package(package)
        registered = registry.register_package(challenger, behaviour=evaluation["crafter"])
        registry.set_alias(registry.CHALLENGER, registered.version)
        champion = registry.champion_version()
        cases = read_cases(challenger.evaluation / CASES_FILE)
        if champion is None:
            reference, name = gate_table(cases, INPUT), "the untouched input"
        elif champion == registered.version:
            reference, name = gate_table(cases), f"the champion, version {champion}, which is the same model"
        else:
            reference, name = _champion_table(champion, manifest, data_revision, evaluation)
        decision = decide(gate_table(cases), reference, GateSettings.model_validate(gate), name)
        if decision.promoted:
            registry.set_alias(registry.CHAMPION, registered.version)
        _record(tracker, registered.version, decision)
        return decision


def _champion_table(version: str, manifest: Path, data_revision: str, settings: dict[str, Any]) -> tuple[Any, str]:
    """The errors of the champion on the held-out cases (a data frame), and what to call it."""
    from components.data.records import read_manifest
    from components.enhance.crafter import Crafter
    from components.evaluation.evaluate import evaluate_crafter
    from components.evaluation.records import EvaluationSettings
    from components.evaluation.tables import CASES_FILE, gate_table, read_cases
    from components.training.tracker import NullTracker
    from steps.lineage import data_folder

    data, out = data_folder(data_revision), output_folder() / "champion"
    crafter = Crafter.load(registry.version_package(version).folder)
    as_used = EvaluationSettings.model_validate(settings).model_copy(update={"crafter": crafter.settings})
    photos = read_manifest(manifest)
    evaluate_crafter(crafter, photos, data / "photos", data / "base", out, as_used, NullTracker())
    return gate_table(read_cases(out / CASES_FILE)), f"the champion, version {version}"


def _record(tracker: MlflowTracker, version: str, decision: Decision) -> None:
    verdict = "promoted to champion" if decision.promoted else "not promoted"
    registry.set_reasons(version, "\n".join([f"{verdict}, compared with {decision.reference}", *decision.reasons]))
    tracker.tags({"model.version": version, "model.promoted": "yes" if decision.promoted else "no"})
    changes = {f"change/{item.metric}": item.change for item in decision.comparisons}
    tracker.metrics({"promoted": float(decision.promoted), **changes}, 0)
