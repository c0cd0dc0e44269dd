"""The command `smartphotocrafter`: enhance a photo or a folder of photos, or only hear what the Critic says.

    smartphotocrafter enhance in.jpg out.jpg
    smartphotocrafter enhance photos/ enhanced/ --strength 0.8
    smartphotocrafter critique in.jpg --json

Exit status: 0 when every photo was processed, 1 when some could not be, 2 for a mistake in the command.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

if TYPE_CHECKING:  # torch and transformers take seconds to import, which `--help` need not wait for
    from components.enhance.crafter import Crafter
    from components.images import Photo

CHAMPION = "champion"
"""Name of the model that is used by default: the package that the last successful promotion exported."""

_SIDE_BY_SIDE_HEIGHT = 1080


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


def model_folder(name: str) -> Path:
    """The package directory that `--model` names.

    The champion lies in ``$SPC_STATE/champion``, or in ``.spc/champion`` of the repository.

    Raises:
        CommandError: there is no such directory.
    """
    if name != CHAMPION:
        if not Path(name).is_dir():
            raise CommandError(f"--model {name}: expected the directory of a package, or {CHAMPION!r}")
        return Path(name)
    state = Path(os.environ.get("SPC_STATE") or Path(__file__).resolve().parents[2] / ".spc")
    folder = state / CHAMPION
    if not folder.is_dir():
        raise CommandError(
            f"there is no champion yet (looked in {folder}): run `make pipeline`, or name a package with --model"
        )
    return folder.resolve()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smartphotocrafter", description="Photo in, better photo out, with the reasons in words."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    enhance = commands.add_parser(
        "enhance",
        help="enhance a photo or every photo of a folder",
        description="Enhance a photo at its full resolution, keeping EXIF, alpha and bit depth, and print the "
        "Critic's text.",
    )
    enhance.add_argument("source", type=Path, metavar="IN", help="a photo, or a folder of photos")
    enhance.add_argument(
        "target",
        type=Path,
        metavar="OUT",
        help="where to write the result (.jpg, .png, .tif, .webp, .avif), or a folder",
    )
    enhance.add_argument(
        "--strength", type=_strength, metavar="S", help="0 leaves the photo, 1 is the full edit, up to 2"
    )
    enhance.add_argument(
        "--draws", type=_positive, metavar="N", help="edits that are averaged; more is smoother, slower"
    )
    enhance.add_argument("--seed", type=int, default=0, help="of the Artist's noise: the same seed, the same photo")
    enhance.add_argument(
        "--side-by-side", type=Path, metavar="OUT2", help="also write before and after next to each other (one photo)"
    )
    enhance.set_defaults(command=_enhance)
    critique = commands.add_parser(
        "critique",
        help="print what the Critic says of a photo",
        description="Print the Critic's reasoning, suggestions and score, without editing anything.",
    )
    critique.add_argument("source", type=Path, metavar="IN", help="a photo, or a folder of photos")
    critique.set_defaults(command=_critique)
    for command in (enhance, critique):
        command.add_argument(
            "--model", default=CHAMPION, metavar="DIR", help="package directory (default: the current champion)"
        )
        command.add_argument("--json", action="store_true", help="print one JSON object a photo instead of text")
    return parser


def _enhance(options: argparse.Namespace) -> int:
    sources = _sources(options.source)
    is_folder = options.source.is_dir()
    if is_folder and options.side_by_side:
        raise CommandError("--side-by-side goes with a single photo, and IN is a folder")
    if is_folder and options.target.exists() and not options.target.is_dir():
        raise CommandError(f"IN is a folder, so OUT must be one too: {options.target} is a file")
    if not is_folder and options.target.is_dir():
        raise CommandError(f"OUT must name a file, as IN does: {options.target} is a folder")
    if options.source.resolve() == options.target.resolve():
        raise CommandError("OUT is IN; the original would be lost: choose another name")
    crafter = _load(options.model)

    def process(source: Path) -> dict[str, Any]:
        from components.images import read_photo, write_photo

        target = options.target / source.name if is_folder else options.target
        photo = read_photo(source)
        result = crafter.enhance(photo, options.seed, options.draws, options.strength)
        write_photo(result.photo, target)
        if options.side_by_side:
            write_photo(_side_by_side(photo, result.photo), options.side_by_side)
        return {"photo": str(source), "enhanced": str(target), "text": result.text, "verdict": result.verdict}

    return _each(sources, process, options)


def _critique(options: argparse.Namespace) -> int:
    sources = _sources(options.source)
    crafter = _load(options.model)

    def process(source: Path) -> dict[str, Any]:
        from components.images import read_photo

        judgement = crafter.critique(read_photo(source))
        return {"photo": str(source), "text": judgement.text, "verdict": judgement.verdict}

    return _each(sources, process, options)


def _each(sources: list[Path], process: Any, options: argparse.Namespace) -> int:
    """Process every photo, printing results as they come; a photo that fails is reported and the others go on."""
    from components.images import UnreadablePhoto

    failed = 0
    for source in _progress(sources):
        try:
            result = process(source)
        except (UnreadablePhoto, OSError, ValueError) as error:
            failed += 1
            tqdm.write(f"error: {error}", file=sys.stderr)
            continue
        tqdm.write(_as_json(result) if options.json else _as_text(result, titled=len(sources) > 1))
    if failed and len(sources) > 1:
        print(f"{len(sources) - failed} of {len(sources)} photos processed, {failed} failed", file=sys.stderr)
    return 1 if failed else 0


def _progress(sources: list[Path]) -> Iterator[Path]:
    return iter(tqdm(sources, unit="photo", disable=len(sources) == 1, file=sys.stderr))


def _as_json(result: dict[str, Any]) -> str:
    verdict = result["verdict"]
    return json.dumps(result | {"verdict": verdict.model_dump() if verdict else None}, ensure_ascii=False)


def _as_text(result: dict[str, Any], titled: bool) -> str:
    lines = [f"{result['photo']}:"] if titled else []
    lines.append(result["text"])
    if "enhanced" in result:
        lines.append(f"Written to {result['enhanced']}.")
    return "\n".join(lines)


def _sources(source: Path) -> list[Path]:
    """The photo, or the files of the folder; hidden ones left out."""
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise CommandError(f"IN: there is no photo and no folder {source}")
    found = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    if not found:
        raise CommandError(f"IN: the folder {source} holds no files")
    return found


def _load(name: str) -> "Crafter":
    from components.enhance.crafter import Crafter
    from components.registry.package import PackageError

    try:
        return Crafter.load(model_folder(name))
    except PackageError as error:
        raise CommandError(str(error)) from error


def _side_by_side(before: "Photo", after: "Photo") -> "Photo":
    """Before and after in one picture at most 1080 pixels high, a white line between them."""
    import torch

    from components.images import Photo, resize

    scale = min(1.0, _SIDE_BY_SIDE_HEIGHT / before.height)
    size = (max(1, round(before.height * scale)), max(1, round(before.width * scale)))
    line = torch.ones(3, size[0], max(2, size[0] // 100))
    return Photo(torch.cat([resize(before.pixels, size), line, resize(after.pixels, size)], dim=-1))


def _strength(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 2:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 2, found {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 up, found {text}")
    return value


if __name__ == "__main__":
    sys.exit(main())
