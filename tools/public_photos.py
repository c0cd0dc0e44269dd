"""Where public test photos of every kind lie, which cannot ship with this repository, and how to get them.

    python -m tools.public_photos            says where
    python -m tools.public_photos FOLDER     gets them there by git, the newest version of each folder alone

Then `make test-files FOLDER=FOLDER` tries them. They stay under their projects' licences.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click


class Project(NamedTuple):
    """A public repository with photos in it.

    Attributes:
        name: on GitHub.
        folder: within it.
        holds: what is worth trying there.
    """

    name: str
    folder: str
    holds: str

    @property
    def url(self) -> str:
        return f"https://github.com/{self.name}"


PROJECTS = (
    Project("python-pillow/Pillow", "Tests/images", "every format, odd modes, damaged files"),
    Project("ianare/exif-samples", "", "JPEG, TIFF and HEIC of many cameras with their EXIF, GPS and maker notes"),
    Project("Exiv2/exiv2", "test/data", "EXIF, IPTC and XMP, broken in every way"),
    Project("AOMediaCodec/libavif", "tests/data", "AVIF: grids, alpha, gain maps, HDR"),
    Project("link-u/avif-sample-images", "", "AVIF of 8, 10 and 12 bits, grey, rotated, cropped, with alpha"),
    Project("bigcat88/pillow_heif", "tests/images", "HEIC of telephones, with odd and broken ones"),
    Project("letmaik/rawpy", "test", "camera raw"),
)
"""Repositories whose files were tried."""


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), required=False)
def main(folder: Path | None) -> None:
    """Say where public photos are, or get them into FOLDER, a folder for each project."""
    for project in PROJECTS:
        where = f"{project.url}/tree/HEAD/{project.folder}" if project.folder else project.url
        print(f"{where}\n    {project.holds}", flush=True)
        if folder is not None and not fetch(project, folder / project.name.replace("/", "-")):
            sys.exit(1)


def fetch(project: Project, target: Path) -> bool:
    """Get a project's folder, unless something is there already; whether it is there afterwards."""
    if target.exists():
        return True
    clone = ["git", "clone", "--quiet", "--depth=1", "--filter=blob:none", "--sparse", project.url, str(target)]
    narrow = ["git", "-C", str(target), "sparse-checkout", "set", *([project.folder] if project.folder else ["/*"])]
    if not project.folder:
        narrow.insert(-1, "--no-cone")
    return all(subprocess.run(command, check=False).returncode == 0 for command in (clone, narrow))


if __name__ == "__main__":
    main()
