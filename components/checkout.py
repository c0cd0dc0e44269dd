"""Where this code lies: in a checkout of the repository, beside configs/ and data/, or installed from a wheel."""

from pathlib import Path

IMPORT_ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds `components`: the repository, a copy of it for a job, or site-packages."""
_MARK = Path("configs") / "stacks"


class NoCheckoutError(RuntimeError):
    """What is asked for needs the repository's other files, and they are not beside the code."""


def checkout() -> Path:
    """The repository that this code lies in.

    Raises:
        NoCheckoutError: it lies in none: it was installed from a wheel.
    """
    if not (IMPORT_ROOT / _MARK).is_dir():
        raise NoCheckoutError(
            f"this needs a checkout of the repository (configs/, data/ and the lock file), and the code is in "
            f"{IMPORT_ROOT}, without them: clone the repository and run it there"
        )
    return IMPORT_ROOT
