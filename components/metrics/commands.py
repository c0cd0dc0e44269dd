"""The command `fetch measures`: download the published weights of learned measures.

    smartphotocrafter fetch measures dists fid

They go where torch, pyiqa and the Hugging Face hub keep theirs ($TORCH_HOME, $HF_HOME), hundreds of megabytes each.
"""

import os
import sys

import click

from components.command_line import Command, CommandError

_NAMES = click.Argument(
    ["names"], nargs=-1, metavar="[NAME]...", help="Some of musiq, nima, dists, clip and fid; all of them by default."
)


@click.command("measures", cls=Command, params=[_NAMES])
def fetch_measures(names: tuple[str, ...]) -> int:
    """Download the published weights of learned measures.

    They go where torch, pyiqa and the Hugging Face hub keep theirs ($TORCH_HOME, $HF_HOME), hundreds of megabytes each.
    The exit status is 1 when something is still missing afterwards.
    """
    os.environ["HF_HUB_OFFLINE"] = "0"  # read at import, below
    from components.metrics.learned import CLIP_MODEL, LEARNED, InceptionFeatures, PyiqaMeasure, unavailable

    if unknown := set(names) - set(LEARNED):
        raise CommandError(f"unknown measures {', '.join(sorted(unknown))}; expected some of {', '.join(LEARNED)}")
    missing = 0
    for name in names or LEARNED:
        try:
            if name == "clip":
                from huggingface_hub import snapshot_download

                snapshot_download(CLIP_MODEL, allow_patterns=["*.json", "*.txt", "*.safetensors"])
            elif name == "fid":
                InceptionFeatures()
            else:
                PyiqaMeasure(name)
        except Exception as error:  # any network library's
            print(f"{name}: {error}", file=sys.stderr)
        left = unavailable(name)
        missing += left is not None
        print(f"{name}: {'is here' if left is None else 'still missing: ' + ', '.join(left.missing)}")
    return 1 if missing else 0
