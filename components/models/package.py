"""Critic and Artist as one directory: base models, adapters, model card and a manifest with the hash of every file.

    package.json                what this is: provenance and the SHA-256 of every other file
    README.md                   the model card
    base/critic, base/artist    the base models, so that the package needs nothing beside it
    critic, artist              the trained adapters
    evaluation                  the held-out tables, and how photos were enhanced, if it was evaluated
    enhancer.json               how to enhance photos with models that came from elsewhere

Weights are safetensors; a package with a file that would have to be unpickled is refused, when written and when read.
"""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, ValidationError

from components import files
from components.strict import Strict

MANIFEST_FILE, CARD_FILE = "package.json", "README.md"
_PARTS = ("base/critic", "base/artist", "critic", "artist")
_PICKLES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"})


class PackageError(ValueError):
    """A directory is not a whole package; the message names the file that is missing, altered or forbidden."""


class FileEntry(Strict):
    """One file of a package."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class Provenance(Strict):
    """Where the models come from."""

    data_revision: str = Field(description="DVC revision of the data they were trained and judged on.")
    code_revision: str = Field(description="git revision of the code.")
    pipeline_run: str = Field(description="Name of the pipeline run.")


class PackageManifest(Strict):
    """What package.json holds."""

    format: Literal[1] = 1
    fingerprint: str = Field(
        pattern="^[0-9a-f]{64}$", description="Of base models and adapters alone: equal for equal models."
    )
    provenance: Provenance
    files: dict[str, FileEntry] = Field(description="Every other file, by its path with forward slashes.")


class Package(NamedTuple):
    """A verified package."""

    folder: Path
    manifest: PackageManifest

    @property
    def base(self) -> Path:
        """The folder of the base models, as data/base is."""
        return self.folder / "base"

    @property
    def critic_adapter(self) -> Path:
        """The Critic's PEFT adapter."""
        return self.folder / "critic"

    @property
    def artist_adapter(self) -> Path:
        """The Artist's PEFT adapter."""
        return self.folder / "artist"

    @property
    def evaluation(self) -> Path:
        """The held-out table, if the package was evaluated."""
        return self.folder / "evaluation"


def write_package(
    out: Path,
    base: Path,
    critic_adapter: Path,
    artist_adapter: Path,
    provenance: Provenance,
    model_card: str,
    evaluation: Path | None = None,
) -> Package:
    """Copy everything into the new directory ``out`` and write its manifest last.

    Args:
        out: must not exist or be empty.
        base: directory with the base models in ``critic`` and ``artist``; anything else in it is left out.
        critic_adapter: PEFT adapter directory.
        artist_adapter: PEFT adapter directory.
        model_card: Markdown.
        evaluation: directory of held-out tables.

    Raises:
        FileExistsError: ``out`` has content.
        PackageError: a part is missing or empty, or holds a pickle or a symbolic link.
    """
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} has content; a package is written into a new directory")
    sources = dict(zip(_PARTS, (base / "critic", base / "artist", critic_adapter, artist_adapter), strict=True))
    if evaluation is not None:
        sources["evaluation"] = evaluation
    for name, source in sources.items():
        if not source.is_dir() or not any(source.iterdir()):
            raise PackageError(f"{source}: expected the directory that becomes {name} of the package")
        shutil.copytree(source, out / name, symlinks=True)
    return seal_package(out, provenance, model_card)


def seal_package(out: Path, provenance: Provenance, model_card: str) -> Package:
    """Make a package of a directory that holds the parts of one: write its card, and its manifest last.

    Raises:
        PackageError: a part is missing, or it holds a pickle or a symbolic link.
    """
    for part in _PARTS:
        if not (out / part).is_dir():
            raise PackageError(f"{out}: {part} is missing")
    files.write_text(out / CARD_FILE, model_card)
    entries = _entries(out)
    manifest = PackageManifest(fingerprint=_fingerprint(entries), provenance=provenance, files=entries)
    files.write_text(out / MANIFEST_FILE, manifest.model_dump_json(indent=2) + "\n")
    return Package(out, manifest)


def read_package(folder: Path) -> Package:
    """Verify a package: every file that the manifest names is there and unaltered, and there is no other.

    Raises:
        PackageError: naming what differs.
    """
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        raise PackageError(f"{path}: expected a package as the promote stage registers it; run `make pipeline` first")
    try:
        manifest = PackageManifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise PackageError(f"{path}: not a package manifest of format 1: {error}") from error
    found = _entries(Path(folder))
    for name in sorted({*found, *manifest.files}):
        if name not in found:
            raise PackageError(f"{folder}: {name} is missing")
        if name not in manifest.files:
            raise PackageError(f"{folder}: {name} does not belong to the package")
        if found[name] != manifest.files[name]:
            raise PackageError(f"{folder}: {name} is altered: its SHA-256 is not the one in {MANIFEST_FILE}")
    if _fingerprint(found) != manifest.fingerprint:
        raise PackageError(f"{folder}: the fingerprint in {MANIFEST_FILE} is not that of its models")
    for part in _PARTS:
        if not any(name.startswith(f"{part}/") for name in found):
            raise PackageError(f"{folder}: {part} is missing")
    return Package(Path(folder), manifest)


def _entries(folder: Path) -> dict[str, FileEntry]:
    entries = {}
    for path in _sorted_files(folder):
        name = path.relative_to(folder).as_posix()
        if name == MANIFEST_FILE:
            continue
        if path.is_symlink():
            raise PackageError(f"{path} is a symbolic link; a package holds files only")
        if path.suffix in _PICKLES:
            raise PackageError(f"{path}: files that have to be unpickled are refused; save weights as safetensors")
        with path.open("rb") as stream:
            entries[name] = FileEntry(
                sha256=hashlib.file_digest(stream, "sha256").hexdigest(), bytes=path.stat().st_size
            )
    return entries


def _sorted_files(folder: Path) -> Iterable[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _fingerprint(entries: Mapping[str, FileEntry]) -> str:
    models = {name: entry for name, entry in entries.items() if name.startswith(tuple(f"{part}/" for part in _PARTS))}
    lines = "".join(f"{name}\0{models[name].sha256}\n" for name in sorted(models))
    return hashlib.sha256(lines.encode()).hexdigest()
