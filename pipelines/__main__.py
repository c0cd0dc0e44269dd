"""The command `smartphotocrafter`: every command by name, imported when it is called.

Processes and pods that start one another say `python -m pipelines COMMAND`: the same command, with the interpreter and
the code of the folder they are in.
"""

import sys
from collections.abc import Sequence

from components import quick_start
from components.command_line import Lazy, LazyGroup, run

_FETCH = LazyGroup(
    "fetch",
    "Bring data or published weights to this machine.",
    {
        "Commands": {
            "data": Lazy(
                "pipelines.commands.operations:fetch_data",
                "Bring the photos and base models that data.dvc names to data/.",
            ),
            "measures": Lazy(
                "components.metrics.commands:fetch_measures", "Download the published weights of learned measures."
            ),
        }
    },
)
_RELEASE = LazyGroup(
    "release",
    "Exchange weights with the authors' release.",
    {
        "Commands": {
            "export": Lazy(
                "components.release.commands:export", "Write trained models in the layout of the authors' release."
            ),
            "import": Lazy("components.release.commands:import_", "Read models in the layout of the authors' release."),
            "enhance": Lazy(
                "components.release.commands:enhance",
                "Enhance a photo with imported models as the authors' script does.",
            ),
        }
    },
)
COMMANDS = LazyGroup(
    "smartphotocrafter",
    "Photo in, better photo out, with the reasons in words. The exit status is 0 when all is done, 1 when something "
    "failed, 2 for a mistake in the command and 130 for an interruption.",
    {
        "Photos": {
            "enhance": Lazy(
                "components.inference.commands:enhance",
                "Enhance a photo, or every photo of a folder, archive or bucket.",
            ),
            "critique": Lazy("components.inference.commands:critique", "Print what the Critic says about a photo."),
            "serve": Lazy("components.serving.commands:serve", "Serve the champion over HTTP."),
            "demo": Lazy(
                "components.demo.commands:demo",
                "Serve a web page to drop photos into, with the champion behind it.",
            ),
        },
        "Training": {
            "run": Lazy("pipelines.commands.runs:run", "Run the whole pipeline, photos to promoted model."),
            "retrain": Lazy(
                "pipelines.commands.operations:retrain",
                "Let the champion go on learning, if data, code or settings changed.",
            ),
            "schedule": Lazy("pipelines.commands.operations:schedule", "Retrain on a schedule."),
            "unschedule": Lazy("pipelines.commands.operations:unschedule", "End the scheduled retraining."),
            "tables": Lazy("pipelines.commands.runs:tables", "Judge registered versions by the paper's tables."),
            "ablation": Lazy(
                "pipelines.commands.runs:ablation",
                "Train without RL, without r_photo and in full, and compare the three.",
            ),
        },
        "Registry": {
            "champion": Lazy("pipelines.commands.registry:champion", "Say who is champion."),
            "rollback": Lazy(
                "pipelines.commands.registry:rollback",
                "Make the previous champion, or another version, champion again.",
            ),
            "release": _RELEASE,
        },
        "This installation": {
            "doctor": Lazy("pipelines.commands.operations:doctor", "Check everything that a run on a stack needs."),
            "check-state": Lazy(
                "pipelines.commands.operations:check_state",
                "Read all that lies in the state folder, and say what is damaged.",
            ),
            "plan": Lazy(
                "components.planning.commands:plan", "Say what a profile needs on given GPUs, and whether it fits."
            ),
            "stack": Lazy(
                "pipelines.commands.registry:stack", "Register a stack from configs/stacks and make it active."
            ),
            "ui": Lazy("pipelines.commands.registry:ui", "Open MLflow's pages and ZenML's dashboard on this machine."),
            "dependencies": Lazy(
                "pipelines.commands.operations:dependencies", "List the files that a step's result depends on."
            ),
            "fetch": _FETCH,
        },
    },
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status.

    Args:
        arguments: the words of the command line (default: those of this process, which is then the command's alone).
    """
    if arguments is not None:
        return run(COMMANDS, arguments)
    quick_start.own_process()
    return quick_start.end(run(COMMANDS))


if __name__ == "__main__":
    quick_start.begin(in_parts=False)  # steps that train have all of their libraries
    sys.exit(quick_start.end(main()))
