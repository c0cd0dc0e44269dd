"""Submits a small pipeline to the stack `kubernetes` in a process of its own: ZenML reads its environment once.

`python -m tests.cluster.drive SETTINGS`; the last line printed is a JSON object.
"""

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.environment import ROOT, Server, State, prepare


def main() -> None:
    """Run once: over ``shards`` or ``nodes`` if the first argument names a number of them, or through the gate."""
    state = prepare(Server("kubernetes", os.environ["SPC_ZENML_URL"], os.environ["SPC_ZENML_API_KEY"]))
    wanted = json.loads(sys.argv[1])
    if "shards" in wanted:
        summary = run_shards(wanted["shards"], state)
    elif "nodes" in wanted:
        summary = run_nodes(wanted, state)
    else:
        summary = run_placed(wanted, state)
    print(json.dumps(summary))


def run_shards(shards: int, state: State) -> dict[str, Any]:
    """The data stages over shards; with the hashes of what they made and of what is made here without them."""
    from components.annotation.annotations import REPORT_FILE, AnnotationSettings, annotate, build_annotator
    from components.data.records import read_manifest
    from components.data.synthesis import SynthesisSettings, synthesize
    from components.data.versioning import data_revision
    from pipelines.configuration import checked_settings
    from pipelines.run import run_pipeline
    from steps.directories import content_hash
    from steps.lineage import data_folders, working_copy
    from tests.cluster.shards import shards as pipeline

    settings = checked_settings(ROOT / "configs" / "small.yaml", [f"scale_out.shards={shards}"], state)
    copy = working_copy(*data_folders(settings))
    parameters = {"settings": settings, "data_revision": data_revision(ROOT), "working_copy": copy}
    run = run_pipeline(pipeline, parameters, stack="kubernetes", state=state).run
    manifest = read_manifest(run.steps["validate"].outputs["validated_manifest"][0].load())
    photos = ROOT / "data" / "photos"
    with TemporaryDirectory() as folder:
        annotations, pairs = Path(folder) / "annotations", Path(folder) / "pairs"
        annotation = AnnotationSettings.model_validate(settings["annotate"])
        annotate(manifest, photos, annotations, annotation, build_annotator(annotation, Path(folder) / "answers.jsonl"))
        (annotations / REPORT_FILE).unlink()
        synthesize(manifest, photos, pairs, SynthesisSettings.model_validate(settings["synthesize"]))
        alone = [content_hash(annotations), content_hash(pairs)]
    return {
        "status": run.status.value,
        "steps": {name: step.status.value for name, step in run.steps.items()},
        "in_shards": [content_hash(run.steps[name].output.load()) for name in ("annotate", "synthesize")],
        "alone": alone,
    }


def run_nodes(wanted: dict[str, Any], state: State) -> dict[str, Any]:
    """A ``stage`` on so many ``nodes``; how far its weights are from those that one process trains.

    ``settings`` are the stage's beside those of the profile. With ``dynamic`` it is a dynamic pipeline, and nothing is
    compared.
    """
    from components.data.versioning import data_revision
    from pipelines.configuration import checked_settings
    from pipelines.run import run_pipeline
    from tests.cluster.nodes import dynamic_nodes, nodes

    stage, dynamic = wanted["stage"], wanted.get("dynamic", False)
    changes = [f"{stage}.{name}={json.dumps(value)}" for name, value in wanted["settings"].items()]
    settings = checked_settings(ROOT / "configs" / "small.yaml", changes, state)[stage]
    trained = _training_run().steps
    artist = {"adapt_artist": "train_artist", "reinforce": "adapt_artist"}[stage]
    inputs = [trained[name].output for name in ("train_critic", artist, "synthesize")]
    parameters = {
        "stage": stage,
        "settings": {stage: settings | {"compute": settings["compute"] | {"nodes": wanted["nodes"]}}},
        "data_revision": data_revision(ROOT),
        "inputs": [str(artifact.id) for artifact in inputs],
    }
    run = run_pipeline(dynamic_nodes if dynamic else nodes, parameters, stack="kubernetes", state=state).run
    summary: dict[str, Any] = {
        "status": run.status.value,
        "steps": {name: step.status.value for name, step in run.steps.items()},
    }
    if dynamic:
        return summary
    there = {name: artifact.load() for name, (artifact,) in run.steps[stage].outputs.items()}
    return summary | _compare(stage, settings, [artifact.load() for artifact in inputs], there)


def _compare(stage: str, settings: dict[str, Any], inputs: list[Path], there: dict[str, Path]) -> dict[str, Any]:
    """Train here in one process: how far, by output, the adapters ``there`` are from these, and how far these moved."""
    from safetensors.torch import load_file

    from components.training.__main__ import run
    from components.training.job import Job

    def between(one: Path, other: Path) -> float:
        mine, theirs = (load_file(folder / "adapter_model.safetensors") for folder in (one, other))
        return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)

    critic, artist, pairs = inputs
    with TemporaryDirectory() as name:
        out, checkpoints = Path(name) / "out", Path(name) / "checkpoints"
        arguments = {"base": ROOT / "data" / "base", "critic_adapter": critic, "artist_adapter": artist}
        arguments |= {"pairs_dir": pairs, "out": out, "checkpoints": checkpoints}
        run(stage, Job(settings=settings, arguments=arguments).write(Path(name)))
        here = {
            "adapted_artist_adapter": (artist, out),
            "reinforced_critic_adapter": (critic, out / "critic"),
            "reinforced_artist_adapter": (artist, out / "artist"),
        }
        return {
            "far": {output: between(here[output][1], folder) for output, folder in there.items()},
            "moved": {output: between(*here[output]) for output in there},
        }


def _training_run() -> Any:
    """The last training run that completed."""
    from zenml.client import Client

    return Client().list_pipeline_runs(
        pipeline_name="training", status="completed", sort_by="desc:created", size=1, hydrate=True
    )[0]


def run_placed(wanted: dict[str, Any], state: State) -> dict[str, Any]:
    """The pipeline with the gate, after a training run has completed; count, pause, name, enhancer's settings."""
    from zenml.client import Client

    from components.data.versioning import data_revision
    from pipelines.configuration import checked_settings
    from pipelines.run import run_pipeline
    from tests.cluster.graph import placed

    wanted = {"count": 6, "pause": 0.0, "name": "", "enhancer": {}, **wanted}
    settings = checked_settings(ROOT / "configs" / "small.yaml", [], state)
    settings["evaluate"]["enhancer"] |= wanted.pop("enhancer")
    trained = _training_run()
    parameters = {
        "counting": wanted,
        "package": str(trained.steps["evaluate"].outputs["package"][0].id),
        "manifest": str(trained.steps["validate"].outputs["validated_manifest"][0].id),
        "data_revision": data_revision(ROOT),
        "settings": {name: settings[name] for name in ("gate", "evaluate")},
    }
    finished = run_pipeline(placed, parameters, stack="kubernetes", state=state)
    run = Client().get_pipeline_run(finished.run.id)
    return {
        "run": run.name,
        "status": run.status.value,
        "mlflow_run": finished.mlflow_run,
        "steps": {name: step.status.value for name, step in run.steps.items()},
        "model": json.loads((run.steps["reinforce"].output.load() / "model.json").read_text()),
    }


if __name__ == "__main__":
    main()
