"""3D lookup tables as .cube files, which Photoshop, Premiere, DaVinci Resolve, ffmpeg and darktable read.

Source: Adobe, "Cube LUT Specification" 1.0 (2013): text, red changes fastest, values relative to DOMAIN_MIN and
DOMAIN_MAX.
"""

from pathlib import Path

from torch import Tensor

from components import files


def cube_text(table: Tensor, title: str) -> str:
    """A table (n, n, n, 3) of colours in [0, 1], indexed by red, green and blue, in the .cube format.

    Input and output are gamma-encoded sRGB. Quotes and line breaks, which the format has no escape for, are taken out
    of the title.

    Raises:
        ValueError: the table has another shape, or fewer than 2 or more than 256 colours a side.
    """
    size = table.shape[0]
    if tuple(table.shape) != (size, size, size, 3) or not 2 <= size <= 256:
        raise ValueError(f"expected a table of shape (n, n, n, 3) with n from 2 to 256, found {tuple(table.shape)}")
    title = "".join(character for character in title if character.isprintable() and character != '"')
    rows = table.permute(2, 1, 0, 3).reshape(-1, 3).tolist()
    head = f'TITLE "{title}"\nLUT_3D_SIZE {size}\nDOMAIN_MIN 0.0 0.0 0.0\nDOMAIN_MAX 1.0 1.0 1.0\n\n'
    return head + "".join(f"{red:.6f} {green:.6f} {blue:.6f}\n" for red, green, blue in rows)


def write_cube(table: Tensor, path: Path, title: str) -> None:
    """Write `cube_text` whole or not at all.

    Raises:
        ValueError: the name does not end in .cube, or as `cube_text`.
        OSError: the file cannot be written.
    """
    if Path(path).suffix.lower() != ".cube":
        raise ValueError(f"{path}: expected a name ending in .cube")
    files.write_text(Path(path), cube_text(table, title))
