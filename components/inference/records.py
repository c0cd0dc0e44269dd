"""What a batch remembers of each photo, in OUT/.smartphotocrafter: how far it came, and which files it wrote."""

import hashlib
from typing import Literal

from pydantic import Field, ValidationError

from components.files import MAX_NAME_BYTES
from components.inference.places import Place
from components.strict import Strict

RECORDS = ".smartphotocrafter"


class Record(Strict):
    """What is known of one photo of a batch."""

    state: Literal["begun", "done"]
    attempts: int = Field(ge=0, description="Runs that ended in the middle of it; counted from the beginning.")
    source: str = Field(description="Fingerprint of the source file; once it is replaced, of the file in its place.")
    options: str = Field(description="Fingerprint of model and options.")
    outputs: tuple[str, ...] = Field(default=(), description="Names of the files that make the result.")
    written: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="SHA-256 of what was, or was about to be, written under each name. Noted before a file is put in "
        "place, so that after a kill what lies there is known, and reduced to what lies there in the end.",
    )

    def wrote(self, name: str, content: bytes) -> bool:
        """Whether the file of that name and content is one that this program wrote."""
        return hashlib.sha256(content).hexdigest() in self.written.get(name, ())

    def about_to_write(self, files: dict[str, bytes]) -> "Record":
        """The record before files are put in place."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        written = {name: (*self.written.get(name, ()), digest) for name, digest in digests.items()}
        return self.model_copy(update={"written": self.written | written})

    def done(self, outputs: tuple[str, ...], source: str) -> "Record":
        """The record when all files are in their place."""
        written = self.written | {name: self.written[name][-1:] for name in outputs}
        update = {"state": "done", "attempts": 0, "outputs": outputs, "source": source, "written": written}
        return self.model_copy(update=update)


def read_record(place: Place, name: str) -> Record | None:
    """The record of the photo ``name``; None where there is none, or one of another version of this program."""
    content = place.read_bytes(_file(name))
    try:
        return None if content is None else Record.model_validate_json(content)
    except ValidationError:
        return None


def write_record(place: Place, name: str, record: Record) -> None:
    """Keep the record of the photo ``name``. Raises: as `Place.put`."""
    place.write_text(_file(name), record.model_dump_json())


def _file(name: str) -> str:
    folder, _, last = name.rpartition("/")
    if len(f"{last}.json".encode()) > MAX_NAME_BYTES:
        last = hashlib.sha256(last.encode()).hexdigest()
    return f"{RECORDS}/{folder}{'/' if folder else ''}{last}.json"
