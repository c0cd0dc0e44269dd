"""What a graph and the pods of its stages on several nodes agree on: variables, folders, the command. Imports nothing.

The pods have no inputs: the run that they belong to is told by their labels, and what they need lies on a volume.
"""

from pathlib import Path

STATE_VARIABLE = "SPC_STATE"
"""Environment variable with the state folder, which lies on the volume that all pods share."""
RUN_VARIABLE, STEP_RUN_VARIABLE = "SPC_RUN", "SPC_STEP_RUN"
"""Environment variables with the ids of the pipeline run and of the step run."""
FROM_LABELS = {RUN_VARIABLE: "run_id", STEP_RUN_VARIABLE: "step_run_id"}
"""The labels, set by ZenML, that they are taken from."""
CODE_FOLDER = "code"


def training_step(stage: str) -> str:
    """Name of the step whose pods train."""
    return f"{stage}_on_nodes"


def run_folder(state: Path, run: str) -> Path:
    """Where a run keeps its code and, in a file for each stage, the folder of its job."""
    return state / "nodes" / "runs" / run


def command(stage: str) -> list[str]:
    """What the containers start: steps/node.py, from the code of the run."""
    code = run_folder(Path(f"${STATE_VARIABLE}"), f"${RUN_VARIABLE}") / CODE_FOLDER
    return ["sh", "-c", f'cd "{code}" && exec python -m steps.node {stage}']
