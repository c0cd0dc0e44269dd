"""The commands `enhance` and `critique`: enhance a photo or many photos, or only read what the Critic says.

    smartphotocrafter enhance in.jpg out.jpg --compare --sidecar --cube look.cube
    smartphotocrafter enhance photos/ enhanced/ --strength 0.8 --format jpg
    smartphotocrafter enhance s3://bucket/photos s3://bucket/enhanced --tone-only
    smartphotocrafter enhance photos/ --in-place
    smartphotocrafter critique in.jpg --json

Exit status: 0 when every photo was processed, 1 when some could not be, 2 for a mistake in the command.
"""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

from components import quick_start
from components.checkout import NoCheckoutError
from components.command_line import Command, CommandError, Device, Precision
from components.inference.arguments import CHAMPION, CRITIQUE, ENHANCE, EnhanceArguments

if TYPE_CHECKING:  # torch and transformers take seconds to import, which `--help` need not wait for
    from components.imaging.source import PictureFile
    from components.inference.enhancer import Enhancer
    from components.inference.places import Place
    from components.inference.sidecar import Sidecar
    from components.inference.workflow import EnhanceOptions, Extras


@contextmanager
def model_folder(name: str) -> Iterator[Path]:
    """The package directory that `--model` names; the champion's follows the registry and stays while it is read.

    Raises:
        CommandError: there is no such directory, or neither of the two places.
    """
    from components.champion.service import NoChampion, champion, state_folder

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
    except NoCheckoutError as error:
        raise CommandError(
            "which model? This is an installed package and knows of no champion: name the directory of one with --model"
        ) from error


@click.command(cls=Command, params=ENHANCE)
def enhance(**given: Any) -> int:
    """Enhance a photo, or every photo of a folder, archive or bucket.

    Works at full resolution, keeps EXIF, colour profile, alpha and bit depth, and prints the Critic's text. Reads JPEG,
    PNG, TIFF, WebP, AVIF, HEIC, camera raw, BMP and GIF.
    """
    quick_start.begin()
    from components.inference.workflow import EnhanceOptions

    _log_warnings()
    options = EnhanceArguments(**given)
    if options.tone_only and options.restore != "never":
        raise CommandError("--tone-only changes no detail, so it does not go with --restore")
    wanted = EnhanceOptions(
        strength=options.strength,
        tone_only=options.tone_only,
        restore=options.restore,
        draws=options.draws,
        seed=options.seed,
        quality=options.quality,
        max_pixels=options.max_pixels,
    )
    source = _place(options.source, must_exist=True)
    if options.in_place:
        return _enhance_in_place(options, source, wanted)
    if options.target is None:
        raise CommandError("where to? Name OUT, or replace the original with --in-place")
    if source.only and source.folder is not None and "://" not in options.target:
        return _enhance_one(options, source.folder / source.only, Path(options.target), wanted)
    return _enhance_many(options, source, _place(options.target), wanted)


def _enhance_one(options: EnhanceArguments, source: Path, target: Path, wanted: "EnhanceOptions") -> int:
    from components.imaging.formats import FORMAT_OF_SUFFIX

    if target.is_dir():
        raise CommandError(f"OUT must name a file, as IN does: {target} is a folder")
    if target.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise CommandError(f"OUT: {target}: expected a name ending in one of {', '.join(FORMAT_OF_SUFFIX)}")
    if options.format:
        raise CommandError("--format goes with many photos; for one, the name of OUT says its format")
    extras = _extras(str(target), options)
    written = [*map(Path, extras.names()), target]
    _check_outputs(source, written, options.overwrite)
    enhancer, _ = _load(options.model, options.device, options.dtype)

    def process() -> tuple["Sidecar", str]:
        from components import files
        from components.inference.workflow import enhance_file

        made = enhance_file(enhancer, source, str(target), wanted, extras)
        _check_outputs(source, written, options.overwrite)
        for name, content in made.files.items():
            files.write_bytes(Path(name), content)
        return made.report, f"\n{made.report.strength_in_words}" + "".join(f"\nWritten to {path}." for path in written)

    return _print_one(process, options.as_json)


def _check_outputs(source: Path, written: Sequence[Path], overwrite: bool) -> None:
    """Raise `CommandError` unless every file to be written is a new one, or this program's to replace."""
    from components.inference.seal import ForeignFileError, check_replaceable

    if len({path.resolve() for path in written}) < len(written):
        raise CommandError(f"two of the files to write have one name: {', '.join(map(str, written))}")
    for path in filter(Path.exists, written):
        suffix = path.suffix.lower()
        if path.samefile(source):
            raise CommandError(f"{path} is IN; the original would be lost: choose another name, or use --in-place")
        if suffix in (".json", ".xmp") or (suffix == ".cube" and not overwrite):
            try:
                check_replaceable(path)
            except ForeignFileError as error:
                raise CommandError(str(error)) from error
        elif not overwrite:
            raise CommandError(f"{path} exists: choose another name, or replace it with --overwrite")


def _enhance_in_place(options: EnhanceArguments, source: "Place", wanted: "EnhanceOptions") -> int:
    if options.target is not None:
        raise CommandError(f"--in-place replaces IN, so there is no OUT: {options.target} is one too many")
    if source.folder is None:
        raise CommandError("--in-place is for photos on this machine's disk: name an OUT")
    if options.format or options.compare is not None:
        raise CommandError("--in-place goes with neither --format nor --compare: name an OUT")
    return _run_batch(options, source, _place(str(source.folder)), wanted)


def _enhance_many(options: EnhanceArguments, source: "Place", target: "Place", wanted: "EnhanceOptions") -> int:
    if target.only:
        raise CommandError(f"IN is not a single photo, so OUT must be a folder or URL: {options.target} is a file")
    if target.is_same(source):
        raise CommandError("OUT is IN; the originals would be lost: choose another folder, or use --in-place")
    return _run_batch(options, source, target, wanted)


def _run_batch(options: EnhanceArguments, source: "Place", target: "Place", wanted: "EnhanceOptions") -> int:
    from components.inference.batch import BusyError, run_batch

    if options.cube or options.compare:
        raise CommandError("--cube FILE and --compare FILE are for a single photo only: leave FILE out for many")
    found = source.names()
    if not found:
        raise CommandError(f"IN: {options.source} holds no files")
    enhancer, model = _load(options.model, options.device, options.dtype)

    def process(name: str, photo: "PictureFile", result: str, beside: str) -> tuple[dict[str, bytes], str]:
        from components.inference.workflow import enhance_file

        made = enhance_file(enhancer, photo, result, wanted, _extras(beside, options))
        return (
            made.files,
            made.report.model_dump_json()
            if options.as_json
            else f"{name}:\n{made.report.text}\n{made.report.strength_in_words}",
        )

    try:
        summary = run_batch(
            source,
            target,
            process,
            options=_fingerprint(options, wanted, model),
            suffix=f".{options.format}" if options.format else None,
            redo=options.redo,
            overwrite=options.overwrite,
            in_place=options.in_place,
            found=found,
        )
    except BusyError as error:
        raise CommandError(str(error)) from error
    print(summary.text(), file=sys.stderr)
    return 1 if summary.failed else 0


@click.command(cls=Command, params=CRITIQUE)
def critique(
    source: str,
    sidecar: bool,
    model: str,
    as_json: bool,
    max_pixels: int | None,
    device: Device,
    dtype: Precision,
) -> int:
    """Print what the Critic says about a photo.

    Its reasoning, suggestions and score; nothing is edited.
    """
    quick_start.begin()
    from components.inference.batch import photos_among, result_names

    _log_warnings()
    place = _place(source, must_exist=True)
    names = [place.only] if place.only else list(photos_among(place.names()))
    if not names:
        raise CommandError(f"IN: {source} holds no photos")
    if sidecar and place.folder is None:
        raise CommandError("--sidecar writes beside the photo, and IN is not on this machine's disk")
    enhancer, _ = _load(model, device, dtype)
    sidecars = result_names(names, ".json")
    failed = 0
    for name in tqdm(names, unit="photo", disable=len(names) == 1):

        def process(name: str = name) -> tuple["Sidecar", str]:
            from components.inference.workflow import critique_file

            beside = place.folder / sidecars[name] if sidecar and place.folder else None
            return critique_file(enhancer, place.read(name), beside, max_pixels), ""

        failed += _print_one(process, as_json, title=name if len(names) > 1 else None)
    if failed:
        print(f"{len(names) - failed} of {len(names)} photos judged, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def _log_warnings() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")


def _print_one(process: Any, as_json: bool, title: str | None = None) -> int:
    """Process one photo and print what came of it; 1 when it failed, with the reason."""
    from components.imaging.photo import UnreadablePhoto

    try:
        report, end = process()
    except (UnreadablePhoto, OSError, ValueError) as error:
        tqdm.write(f"error: {error}", file=sys.stderr)
        return 1
    head = f"{title}:\n" if title else ""
    tqdm.write(json.dumps(report.model_dump(mode="json"), ensure_ascii=False) if as_json else head + report.text + end)
    return 0


def _place(url: str, must_exist: bool = False) -> "Place":
    from components.inference.places import Place

    try:
        place = Place.open(url)
    except ValueError as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(f"{url}: the system says: {error.strerror or error}") from error
    if must_exist and place.folder is not None and not Path(url).exists() and "://" not in url:
        raise CommandError(f"IN: there is no photo and no folder {url}")
    return place


def _extras(target: str, options: EnhanceArguments) -> "Extras":
    """The names of the files that go with the result ``target``, like its own unless another one is given."""
    from components.imaging.formats import FORMAT_OF_SUFFIX
    from components.inference.workflow import Extras

    names: dict[str, str] = {}
    if options.sidecar:
        names["sidecar"] = str(PurePath(target).with_suffix(".json"))
    if options.cube is not None:
        names["cube"] = options.cube or str(PurePath(target).with_suffix(".cube"))
        if PurePath(names["cube"]).suffix.lower() != ".cube":
            raise CommandError(f"--cube {options.cube}: expected a name ending in .cube")
    if options.compare is not None:
        names["compare"] = options.compare or str(PurePath(target).with_suffix(".compare.jpg"))
        if PurePath(names["compare"]).suffix.lower() not in FORMAT_OF_SUFFIX:
            raise CommandError(f"--compare {options.compare}: expected the name of a picture, such as both.jpg")
    return Extras(**names)


def _fingerprint(options: EnhanceArguments, wanted: "EnhanceOptions", model: str) -> str:
    """What decides on the result of a photo: the model and the options."""
    extras = [options.sidecar, options.cube is not None, options.compare is not None]
    return json.dumps([model, wanted.model_dump(mode="json"), extras], sort_keys=True)


def _load(name: str, device: Device, dtype: Precision) -> tuple["Enhancer", str]:
    """The model that `--model` names, and what tells it from others: the fingerprint in its manifest."""
    from components.champion.service import REPAIR
    from components.inference.enhancer import Enhancer
    from components.models.compute import ComputeSettings
    from components.models.package import MANIFEST_FILE, PackageError

    try:
        placement = ComputeSettings(device=device, dtype=dtype).place()
    except RuntimeError as error:
        raise CommandError(
            f"--device {device}: PyTorch sees no such device: check the driver, or leave it out"
        ) from error
    try:
        with model_folder(name) as folder:
            enhancer, manifest = Enhancer.load(folder, placement=placement), folder / MANIFEST_FILE
            quick_start.loaded()
            there = manifest.is_file()
            model = json.loads(manifest.read_text("utf-8"))["fingerprint"] if there else str(folder)
            return enhancer, model if dtype == "float32" else f"{model} in {dtype}"
    except PackageError as error:
        raise CommandError(f"{error}{REPAIR if name == CHAMPION else ''}") from error
