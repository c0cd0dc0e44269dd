"""Download the published weights of learned measures: `python -m components.metrics.fetch dists fid ...`.

They go where torch, pyiqa and the Hugging Face hub keep theirs ($TORCH_HOME, $HF_HOME), hundreds of megabytes each.
"""

import argparse
import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch what is named; 1 when something is still missing afterwards."""
    os.environ["HF_HUB_OFFLINE"] = "0"  # read at import, below
    from components.metrics.learned import CLIP_MODEL, LEARNED, InceptionFeatures, PyiqaMeasure, unavailable

    parser = argparse.ArgumentParser(prog="python -m components.metrics.fetch", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(LEARNED)} (default: all of them)")
    names = parser.parse_args(arguments).names or list(LEARNED)
    if unknown := set(names) - set(LEARNED):
        parser.error(f"unknown measures {', '.join(sorted(unknown))}; expected some of {', '.join(LEARNED)}")
    missing = 0
    for name in names:
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


if __name__ == "__main__":
    sys.exit(main())
