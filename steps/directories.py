"""How files and folders become artifacts: stored as they are, hashed by content, read in place from a local store.

ZenML's own materializer packs a ``Path`` into a compressed archive, unpacks it anew for every reader and has no content
hash, so that a stage repeated with the same result would make everything after it run again.
"""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType, VisualizationType
from zenml.io import fileio
from zenml.materializers.base_materializer import BaseMaterializer
from zenml.materializers.materializer_registry import materializer_registry
from zenml.metadata.metadata_types import MetadataType
from zenml.utils import io_utils

_FILE, _FOLDER = "file", "folder"


class AlteredArtifact(RuntimeError):  # noqa: N818 (reads as a sentence where it is caught)
    """A stored file or folder has been changed; the message says which and what to do."""


class DirectoryMaterializer(BaseMaterializer):
    """Stores a ``pathlib.Path`` to a file or a folder, byte for byte.

    From a local artifact store the path of the stored copy is handed out: treat it as read-only. From a remote store
    the files are copied to a temporary folder that lives as long as the step.
    """

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Path,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA
    SKIP_REGISTRATION: ClassVar[bool] = True  # registered below, in the place of ZenML's own

    def save(self, data: Path) -> None:
        """Copy the file or folder into the artifact store.

        Raises:
            FileNotFoundError: there is nothing at ``data``.
            ValueError: the folder holds a symbolic link, which would not survive the copy.
        """
        if data.is_file():
            folder = f"{self.uri}/{_FILE}"
            fileio.makedirs(folder)
            fileio.copy(str(data), f"{folder}/{data.name}")
            return
        paths = _files_below(data)
        fileio.makedirs(f"{self.uri}/{_FOLDER}")
        for path in paths:
            target = f"{self.uri}/{_FOLDER}/{path.relative_to(data).as_posix()}"
            fileio.makedirs(target.rsplit("/", 1)[0])
            fileio.copy(str(path), target)

    def load(self, data_type: type[Any]) -> Path:
        """The stored file or folder as a local path.

        Raises:
            FileNotFoundError: the artifact store no longer has it.
            AlteredArtifact: it is not what was stored.
        """
        for kind in (_FILE, _FOLDER):
            stored = f"{self.uri}/{kind}"
            if not fileio.exists(stored):
                continue
            if Path(stored).is_dir():
                local = Path(stored)
            else:
                with self.get_temporary_directory(delete_at_exit=False) as temporary:
                    io_utils.copy_dir(stored, temporary)
                local = Path(temporary)
            data = local if kind == _FOLDER else next(local.iterdir())
            expected = self.expected_content_hash  # ZenML's record; None outside of a run
            if expected and (found := content_hash(data)) != expected:
                raise AlteredArtifact(
                    f"the artifact at {self.uri} is not what was stored there: expected content with the hash "
                    f"{expected}, found {found}; `make pipeline ARGS=--no-cache` makes it again"
                )
            return data
        raise FileNotFoundError(
            f"the artifact at {self.uri} is gone; run the pipeline with --no-cache to make it again"
        )

    def compute_content_hash(self, data: Path) -> str:
        """SHA-256 over the relative names and the contents of all files."""
        return content_hash(data)

    def extract_metadata(self, data: Path) -> dict[str, MetadataType]:
        """Number of files and their total size in bytes."""
        sizes = [path.stat().st_size for path in ([data] if data.is_file() else _files_below(data))]
        return {"files": len(sizes), "bytes": sum(sizes)}

    def save_visualizations(self, data: Path) -> dict[str, VisualizationType]:
        """Let the dashboard show the HTML pages at the top of the folder."""
        if data.is_file():
            return {f"{self.uri}/{_FILE}/{data.name}": VisualizationType.HTML} if data.suffix == ".html" else {}
        return {f"{self.uri}/{_FOLDER}/{page.name}": VisualizationType.HTML for page in sorted(data.glob("*.html"))}


def content_hash(path: Path) -> str:
    """SHA-256 of a file or folder: of the relative name and the SHA-256 of each file, in the order of the names."""
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else _files_below(path):
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        with file.open("rb") as stream:
            digest.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _files_below(folder: Path) -> list[Path]:
    """Files in the order of their names; hidden ones are leftovers of a killed writer (components/files.py)."""
    if not folder.is_dir():
        raise FileNotFoundError(f"a step returned {folder} as an artifact, but there is no file or folder")
    paths = sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
    if links := [path for path in paths if path.is_symlink()]:
        raise ValueError(f"{links[0]} is a symbolic link; artifacts hold files only")
    return [path for path in paths if path.is_file() and not path.name.startswith(".")]


materializer_registry.register_and_overwrite_type(Path, DirectoryMaterializer)
