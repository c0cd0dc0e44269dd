"""Assets: files that operations need beside their numbers, named by the SHA-256 of their content.

A record that names an asset stays exact: a file that has changed since no longer has its name.
"""

import hashlib
from pathlib import Path

from components import files

ASSET_PATTERN = r"^[0-9a-f]{64}\.(cube|png)$"


def keep_asset(assets: Path, content: bytes, suffix: str) -> str:
    """Write a file into the folder ``assets`` under its own hash, unless it is there; returns its name."""
    name = f"{hashlib.sha256(content).hexdigest()}{suffix}"
    path = Path(assets) / name
    if not path.is_file():
        files.write_bytes(path, content)
    return name


def read_asset(assets: Path | None, name: str) -> bytes:
    """The content of an asset.

    Raises:
        FileNotFoundError: the folder is not given or does not hold it.
        ValueError: the file's content is not what its name says.
    """
    if assets is None:
        raise FileNotFoundError(f"{name}: expected the folder that holds this asset of an operation, found none given")
    path = Path(assets) / name
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected the asset of an operation; copy the assets along with their records")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != path.stem:
        raise ValueError(f"{path}: expected the content of its name, found SHA-256 {found}; restore the file")
    return content
