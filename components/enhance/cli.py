"""The command `smartphotocrafter`: enhance a photo or many photos, or only hear what the Critic says.

    smartphotocrafter enhance in.jpg out.jpg --compare --sidecar --cube look.cube
    smartphotocrafter enhance photos/ enhanced/ --strength 0.8 --format jpg
    smartphotocrafter enhance s3://bucket/photos s3://bucket/enhanced --tone-only
    smartphotocrafter critique in.jpg --json

Exit status: 0 when every photo was processed, 1 when some could not be, 2 for a mistake in the command.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:  # torch and transformers take seconds to import, which `--help` need not wait for
    from components.enhance.crafter import Crafter
    from components.enhance.places import Place
    from components.enhance.sidecar import Sidecar
    from components.enhance.workflow import EnhanceOptions, Extras

CHAMPION = "champion"
"""Name of the model that is used by default: whatever the registry calls champion."""

_FORMATS = ("jpg", "png", "tif", "webp", "avif", "heic")
_BESIDE = ""  # an option given without a file name: the file lies beside OUT, under its name


class CommandError(Exception):
    """A mistake in the command, said in one sentence."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return options.command(options)
    except CommandError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


@contextmanager
def model_folder(name: str) -> Iterator[Path]:
    """The package directory that `--model` names; the champion's follows the registry and stays while it is read.

    Raises:
        CommandError: there is no such directory.
    """
    from components.registry.service import NoChampion, champion, state_folder

    if name != CHAMPION:
        if not Path(name).is_dir():
            raise CommandError(f"--model {name}: expected the directory of a package, or {CHAMPION!r}")
        yield Path(name)
        return
    try:
        with champion(state_folder()) as folder:
            yield folder
    except NoChampion as none:
        raise CommandError(f"{none} with --model") from none


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smartphotocrafter", description="Photo in, better photo out, with the reasons in words."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_enhance(commands)
    critique = commands.add_parser(
        "critique",
        help="print what the Critic says of a photo",
        description="Print the Critic's reasoning, suggestions and score, without editing anything.",
    )
    critique.add_argument("source", metavar="IN", help="a photo, or a folder, archive or bucket of photos")
    critique.add_argument(
        "--sidecar",
        action="store_true",
        help="also write the verdict beside the photo, as NAME.json and as NAME.xmp for Camera Raw",
    )
    critique.set_defaults(command=_critique)
    for command in (*commands.choices.values(),):
        command.add_argument(
            "--model", default=CHAMPION, metavar="DIR", help="package directory (default: the current champion)"
        )
        command.add_argument("--json", action="store_true", help="print one JSON object a photo instead of text")
    return parser


def _add_enhance(commands: Any) -> None:
    enhance = commands.add_parser(
        "enhance",
        help="enhance a photo, or every photo of a folder, archive or bucket",
        description="Enhance a photo at its full resolution, keeping EXIF, colour profile, alpha and bit depth, and "
        "print the Critic's text. Reads JPEG, PNG, TIFF, WebP, AVIF, HEIC, camera raw, BMP and GIF.",
    )
    enhance.add_argument(
        "source", metavar="IN", help="a photo; or a folder, a .zip or .tar, or a URL such as s3://bucket/photos"
    )
    enhance.add_argument(
        "target",
        metavar="OUT",
        help="where to write the result (.jpg, .png, .tif, .webp, .avif, .heic); or a folder "
        "or URL, where photos done before are skipped",
    )
    edit = enhance.add_argument_group("the edit")
    edit.add_argument(
        "--strength",
        type=_strength,
        metavar="S",
        help="0 leaves the photo, 1 is the Artist's edit, up to 2; default: as the model was judged",
    )
    edit.add_argument(
        "--tone-only", action="store_true", help="change tone and colour of the whole photo alike, nothing local"
    )
    edit.add_argument(
        "--restore",
        choices=("never", "asked", "always"),
        default="never",
        help="carry over what the Artist did to blur, noise and other detail: never (the default), where the Critic "
        "asks for it, or always",
    )
    edit.add_argument(
        "--draws",
        type=_positive,
        metavar="N",
        help="edits that are averaged; more is smoother, slower; default: as judged",
    )
    edit.add_argument("--seed", type=int, default=0, help="of the Artist's noise: the same seed, the same photo")
    files = enhance.add_argument_group("files")
    files.add_argument("--quality", type=_quality, default=95, metavar="Q", help="1 to 100, default 95")
    files.add_argument("--format", choices=_FORMATS, help="of the results of many photos (default: as the source)")
    files.add_argument(
        "--sidecar", action="store_true", help="also write the verdict: NAME.json, and NAME.xmp for Camera Raw"
    )
    for option, what in (
        ("cube", "the global part of the edit as a 3D LUT"),
        ("compare", "before and after in one picture"),
    ):
        files.add_argument(
            f"--{option}", nargs="?", const=_BESIDE, metavar="FILE", help=f"also write {what} (default: beside OUT)"
        )
    files.add_argument("--redo", action="store_true", help="do photos of a folder again that were done before")
    enhance.set_defaults(command=_enhance)


def _enhance(options: argparse.Namespace) -> int:
    from components.enhance.workflow import EnhanceOptions

    if options.tone_only and options.restore != "never":
        raise CommandError("--tone-only changes no detail, so it does not go with --restore")
    wanted = EnhanceOptions(
        strength=options.strength,
        tone_only=options.tone_only,
        restore=options.restore,
        draws=options.draws,
        seed=options.seed,
        quality=options.quality,
    )
    source = _place(options.source, must_exist=True)
    if source.only and source.folder is not None and "://" not in options.target:
        return _enhance_one(options, source.folder / source.only, Path(options.target), wanted)
    return _enhance_many(options, source, wanted)


def _enhance_one(options: argparse.Namespace, source: Path, target: Path, wanted: "EnhanceOptions") -> int:
    from components.images import FORMAT_OF_SUFFIX

    if target.is_dir():
        raise CommandError(f"OUT must name a file, as IN does: {target} is a folder")
    if target.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise CommandError(f"OUT: {target}: expected a name ending in one of {', '.join(FORMAT_OF_SUFFIX)}")
    if options.format:
        raise CommandError("--format goes with many photos; for one, the name of OUT says its format")
    extras = _extras(target, options)
    written = [target, *filter(None, (extras.sidecar, extras.cube, extras.compare))]
    if source.resolve() in [path.resolve() for path in written]:
        raise CommandError("OUT is IN; the original would be lost: choose another name")
    crafter, _ = _load(options.model)

    def process() -> tuple["Sidecar", str]:
        from components.enhance.workflow import enhance_file

        report = enhance_file(crafter, source, target, wanted, extras)
        return report, "".join(f"\nWritten to {path}." for path in written)

    return _print_one(process, options.json)


def _enhance_many(options: argparse.Namespace, source: "Place", wanted: "EnhanceOptions") -> int:
    from components.enhance.batch import run_batch

    if options.cube or options.compare:
        raise CommandError("--cube FILE and --compare FILE are for a single photo only: leave FILE out for many")
    target = _place(options.target)
    if target.only:
        raise CommandError(f"IN is not a single photo, so OUT must be a folder or URL: {options.target} is a file")
    if (target.root, target.files) == (source.root, source.files):
        raise CommandError("OUT is IN; the originals would be lost: choose another folder")
    found = source.names()
    if not found:
        raise CommandError(f"IN: {options.source} holds no files")
    crafter, model = _load(options.model)

    def process(name: str, photo: Path, result: Path) -> str:
        from components.enhance.workflow import enhance_file

        report = enhance_file(crafter, photo, result, wanted, _extras(result, options))
        return report.model_dump_json() if options.json else f"{name}:\n{report.text}"

    summary = run_batch(
        source,
        target,
        process,
        options=_fingerprint(options, wanted, model),
        suffix=f".{options.format}" if options.format else None,
        redo=options.redo,
        found=found,
    )
    print(summary.text(), file=sys.stderr)
    return 1 if summary.failed else 0


def _critique(options: argparse.Namespace) -> int:
    from components.enhance.batch import photos_among, result_names

    source = _place(options.source, must_exist=True)
    names = [source.only] if source.only else list(photos_among(source.names()))
    if not names:
        raise CommandError(f"IN: {options.source} holds no photos")
    if options.sidecar and source.folder is None:
        raise CommandError("--sidecar writes beside the photo, and IN is not on this machine's disk")
    crafter, _ = _load(options.model)
    sidecars = result_names(names, ".json")
    failed = 0
    for name in tqdm(names, unit="photo", disable=len(names) == 1):

        def process(name: str = name) -> tuple["Sidecar", str]:
            from components.enhance.workflow import critique_file

            with source.reading(name) as photo:
                sidecar = photo.with_name(Path(sidecars[name]).name) if options.sidecar else None
                return critique_file(crafter, photo, sidecar), ""

        failed += _print_one(process, options.json, title=name if len(names) > 1 else None)
    if failed:
        print(f"{len(names) - failed} of {len(names)} photos judged, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def _print_one(process: Any, as_json: bool, title: str | None = None) -> int:
    """Process one photo and print what came of it; 1 when it failed, with the reason."""
    from components.images import UnreadablePhoto

    try:
        report, end = process()
    except (UnreadablePhoto, OSError, ValueError) as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    head = f"{title}:\n" if title else ""
    tqdm.write(json.dumps(report.model_dump(mode="json"), ensure_ascii=False) if as_json else head + report.text + end)
    return 0


def _place(url: str, must_exist: bool = False) -> "Place":
    from components.enhance.places import Place

    try:
        place = Place.open(url)
    except ValueError as error:
        raise CommandError(str(error)) from error
    if must_exist and place.folder is not None and not Path(url).exists() and "://" not in url:
        raise CommandError(f"IN: there is no photo and no folder {url}")
    return place


def _extras(target: Path, options: argparse.Namespace) -> "Extras":
    """The files that go with the result ``target``, under its name unless another one is given."""
    from components.enhance.workflow import Extras
    from components.images import FORMAT_OF_SUFFIX

    paths: dict[str, Path] = {}
    if options.sidecar:
        paths["sidecar"] = target.with_suffix(".json")
    if options.cube is not None:
        paths["cube"] = Path(options.cube or target.with_suffix(".cube"))
        if paths["cube"].suffix.lower() != ".cube":
            raise CommandError(f"--cube {options.cube}: expected a name ending in .cube")
    if options.compare is not None:
        paths["compare"] = Path(options.compare or target.with_suffix(".compare.jpg"))
        if paths["compare"].suffix.lower() not in FORMAT_OF_SUFFIX:
            raise CommandError(f"--compare {options.compare}: expected the name of a picture, such as both.jpg")
    return Extras(**paths)


def _fingerprint(options: argparse.Namespace, wanted: "EnhanceOptions", model: str) -> str:
    """What decides on the result of a photo: the model and the options."""
    extras = [options.sidecar, options.cube is not None, options.compare is not None]
    return json.dumps([model, wanted.model_dump(mode="json"), extras], sort_keys=True)


def _load(name: str) -> tuple["Crafter", str]:
    """The model that `--model` names, and what tells it from others: the fingerprint in its manifest."""
    from components.enhance.crafter import Crafter
    from components.registry.package import MANIFEST_FILE, PackageError
    from components.registry.service import REPAIR

    try:
        with model_folder(name) as folder:
            crafter, manifest = Crafter.load(folder), folder / MANIFEST_FILE
            there = manifest.is_file()
            return crafter, json.loads(manifest.read_text("utf-8"))["fingerprint"] if there else str(folder)
    except PackageError as error:
        raise CommandError(f"{error}{REPAIR if name == CHAMPION else ''}") from error


def _strength(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2, found {text}")
    return value


def _quality(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 1 to 100, found {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, found {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
