"""How this program knows the text files it wrote: each holds a seal, the digest of all the rest of the file.

A file that another program wrote has no seal, and one that somebody changed since has a seal that is wrong: neither is
this program's to replace.
"""

import hashlib
import re
from pathlib import Path

BLANK = f"smartphotocrafter:{'0' * 64}"
"""Stands where the seal will be, in a text that is given to `sealed`."""

_SEAL = re.compile(rb"smartphotocrafter:([0-9a-f]{64})")


class ForeignFileError(ValueError):
    """A file would be replaced that this program did not write. ``reason`` is a phrase fit for counting."""

    reason = "a file that this program did not write has the name of one of its results, and stays"


def sealed(text: str) -> str:
    """The text with its seal in the place of the first `BLANK`.

    Raises:
        ValueError: there is no place for a seal.
    """
    if BLANK not in text:
        raise ValueError("expected a text with a place for its seal")
    return text.replace(BLANK, f"smartphotocrafter:{hashlib.sha256(text.encode('utf-8')).hexdigest()}", 1)


def is_sealed(content: bytes) -> bool:
    """Whether this program wrote a file of that content, and nobody changed it since."""
    seal = _SEAL.search(content)
    if seal is None:
        return False
    blank = content[: seal.start()] + BLANK.encode() + content[seal.end() :]
    return hashlib.sha256(blank).hexdigest() == seal[1].decode()


def check_replaceable(path: Path) -> None:
    """Raise `ForeignFileError` when ``path`` is a file without an unbroken seal."""
    if path.exists() and not is_sealed(path.read_bytes()):
        raise ForeignFileError(
            f"{path} belongs to another program, or was changed since this one wrote it, and would be lost: move it "
            "away first"
        )
