"""The commands `release export` and `release import`: models as the authors' release has them, and theirs as here.

    smartphotocrafter release export --base data/base --critic DIR --artist DIR --out release/
    smartphotocrafter release export --base data/base --artist DIR --adapters-only --diffusers --out lora/
    smartphotocrafter release import --source models/SmartPhotoCrafter --vae vae.safetensors --out imported/
    smartphotocrafter release enhance in.jpg out.png --model imported/

Exported adapters are what the release's `infer.py` takes as --dit_lora_path and --vlm_lora_path. An import leaves
base/critic, base/artist, critic and artist, as `Critic.load` and `Artist.load` take them; all four are a package, which
`enhance --model` takes too.
"""

import logging
from collections.abc import Callable
from pathlib import Path

import click

from components.command_line import PATH, Command, CommandError, Device, Number, Option, Precision, compute_options

_OUT = Option(["--out"], type=PATH, required=True, help="A new folder.")
_EXPORT: list[click.Parameter] = [
    _OUT,
    Option(
        ["--base"],
        type=PATH,
        show_default="the published configurations",
        help="Folder of base models, such as data/base; without it only --adapters-only works.",
    ),
    Option(["--critic"], type=PATH, help="Folder of a trained adapter of the Critic."),
    Option(["--artist"], type=PATH, help="Folder of a trained adapter of the Artist."),
    Option(["--adapters-only"], is_flag=True, help="Leave the base models out."),
    Option(["--diffusers"], is_flag=True, help="Also write pytorch_lora_weights.safetensors."),
]
_IMPORT: list[click.Parameter] = [
    Option(["--source"], type=PATH, required=True, help="Folder of the release."),
    _OUT,
    Option(["--models"], type=PATH, show_default="the published ones", help="Folder with the models' configurations."),
    Option(["--vae"], type=PATH, help="File with the weights of the autoencoder, if not in the folder."),
    Option(
        ["--prompt"],
        type=PATH,
        show_default="this project's own",
        help="Text file with what the release's Critic is told beside the photo.",
    ),
]
_ENHANCE: list[click.Parameter] = [
    click.Argument(["source"], metavar="IN", type=PATH, help="A photo."),
    click.Argument(["target"], metavar="OUT", type=PATH, help="A new file: .jpg, .png, .tif, .webp, .avif or .heic."),
    Option(["--model"], type=PATH, required=True, metavar="DIR", help="Folder that `release import` made."),
    *compute_options("bfloat16"),
    Option(["--seed"], type=Number(int, 0), default=42, help="Seed of the noise."),
]


@click.command(cls=Command, params=_EXPORT)
def export(
    out: Path, base: Path | None, critic: Path | None, artist: Path | None, adapters_only: bool, diffusers: bool
) -> int:
    """Write trained models in the layout of the authors' release.

    The adapters are what the release's `infer.py` takes as --dit_lora_path and --vlm_lora_path.
    """
    from components.models.published import PUBLISHED
    from components.release.folders import export_release

    return _written(lambda: export_release(out, base or PUBLISHED, critic, artist, adapters_only, diffusers))


@click.command("import", cls=Command, params=_IMPORT)
def import_(source: Path, out: Path, models: Path | None, vae: Path | None, prompt: Path | None) -> int:
    """Read models in the layout of the authors' release.

    Leaves base/critic, base/artist, critic and artist in the new folder; if all four are there, it is a package for
    `enhance --model`.
    """
    from components.models.published import PUBLISHED
    from components.release.folders import import_release

    return _written(lambda: import_release(source, out, models or PUBLISHED, vae, prompt))


@click.command(cls=Command, params=_ENHANCE)
def enhance(
    source: Path,
    target: Path,
    model: Path,
    device: Device,
    dtype: Precision,
    seed: int,
) -> int:
    """Enhance a photo with imported models as the authors' script does.

    The picture has the script's working size of about a megapixel; `enhance --model` works at the photo's own size, by
    this project's sampler.
    """
    from components.imaging.formats import FORMAT_OF_SUFFIX

    if target.exists():
        raise CommandError(f"OUT: {target} exists: choose another name")
    if target.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise CommandError(f"OUT: {target}: expected a name ending in one of {', '.join(FORMAT_OF_SUFFIX)}")
    from components.imaging.photo import UnreadablePhoto
    from components.models.compute import ComputeSettings
    from components.release.picture import enhance_as_released

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        placement = ComputeSettings(device=device, dtype=dtype).place()
        print(enhance_as_released(model, source, target, placement, seed).text)
    except (UnreadablePhoto, ValueError, OSError, RuntimeError) as error:
        raise CommandError(str(error)) from error
    print(f"\nWritten to {target}.")
    return 0


def _written(work: Callable[[], list[Path]]) -> int:
    """Do the work and print what it wrote."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    try:
        written = work()
    except (ValueError, OSError) as error:
        raise CommandError(str(error)) from error
    for path in written:
        print(path)
    return 0
