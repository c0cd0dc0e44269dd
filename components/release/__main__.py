"""Write trained models as the authors' release has them, and read theirs.

    python -m components.release export --base data/base --critic DIR --artist DIR --out release/
    python -m components.release export --base data/base --artist DIR --adapters-only --diffusers --out lora/
    python -m components.release import --source models/SmartPhotoCrafter --vae vae.safetensors --out imported/

Exported adapters are what the release's `infer.py` takes as --dit_lora_path and --vlm_lora_path. An import leaves
base/critic, base/artist, critic and artist, as `Critic.load` and `Artist.load` take them.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from components.models.published import PUBLISHED
from components.release.folders import export_release, import_release


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the commands; 0 when it is done, 2 when something is not as it should be."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        if options.command == "export":
            written = export_release(
                options.out, options.base, options.critic, options.artist, options.adapters_only, options.diffusers
            )
        else:
            written = import_release(options.source, options.out, options.models, options.vae)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for path in written:
        print(path)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m components.release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export", help="write the release's layout")
    export.add_argument("--out", type=Path, required=True, help="a new folder")
    export.add_argument(
        "--base",
        type=Path,
        default=PUBLISHED,
        help="folder of base models, such as data/base; without it only --adapters-only works",
    )
    export.add_argument("--critic", type=Path, help="trained adapter of the Critic")
    export.add_argument("--artist", type=Path, help="trained adapter of the Artist")
    export.add_argument("--adapters-only", action="store_true", help="leave the base models out")
    export.add_argument("--diffusers", action="store_true", help="also write pytorch_lora_weights.safetensors")
    imported = commands.add_parser("import", help="read the release's layout")
    imported.add_argument("--source", type=Path, required=True, help="folder of the release")
    imported.add_argument("--out", type=Path, required=True, help="a new folder")
    imported.add_argument(
        "--models", type=Path, default=PUBLISHED, help="folder of configurations, if not the published ones"
    )
    imported.add_argument("--vae", type=Path, help="weights of the autoencoder, if not in the folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
