"""What an adapter yields: a record for each photo, and what it says of a file that yields none."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from components.data.sources import folders
from components.data.splits import SPLITS, Split
from components.photometry.operations import TONE, Operation

if TYPE_CHECKING:  # pairs imports the ingest, which imports the sources
    from components.data.pairs import PairKind

Role = Literal["input", "target"]
MISSING = "listed in the annotations but missing"
ADDABLE = (*TONE, "bokeh", "look")
"""Operations that a target may record: what is done to the input to make it, where that can be asked for in words."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was found, or expected, and yields no record. ``reason`` is one of a few phrases, fit for counting.

    ``path`` is relative to the dataset's root, with forward slashes.
    """

    path: str
    reason: str

    @property
    def beside(self) -> bool:
        """Whether the file is no photo of its own but lies beside one (`folders.BESIDE`): it is not quarantined."""
        return self.reason in folders.BESIDE

    @property
    def absent(self) -> bool:
        """Whether the dataset lists the file and it is not there."""
        return self.reason == MISSING


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One photo of a dataset and all that the dataset says about it.

    Attributes:
        path: of the photo, relative to the dataset's root, with forward slashes; unique in the dataset.
        dataset: name of the dataset.
        split: as published, or None where the dataset publishes none: then `group` decides.
        mos: mean opinion score on the common scale, 0 (worst) to 100 (best), or None where people gave none.
        mos_original, mos_low, mos_high, mos_ascending: the score as published, the ends of its scale, and whether
            higher is better; None exactly when ``mos`` is.
        labels: plain words name distortions and what the photo is; "key=value" are attributes.
        pair: names the pair, or None. Where one input has several targets (or the reverse) all share the name, and
            every input of it pairs with every target of it.
        scene: names what a photo without a pair shows, where others show it too: those of one scene share a split.
        role: "input" or "target"; None exactly when ``pair`` is.
        kind: of the pair, one of `components.data.pairs.KINDS`; None exactly when ``pair`` is.
        operations: what was done, where the dataset lets it be known: to an input, what spoilt it; to a target, what
            makes it from its input, of `ADDABLE`. The pair's instruction is made of them, the labels and the kind.
        licence: of the photo, in words.
        author, source: of the photo, where published; ``source`` is an address.
    """

    path: str
    dataset: str
    split: Split | None
    licence: str
    mos: float | None = None
    mos_original: float | None = None
    mos_low: float | None = None
    mos_high: float | None = None
    mos_ascending: bool | None = None
    labels: tuple[str, ...] = ()
    pair: str | None = None
    scene: str | None = None
    role: Role | None = None
    kind: "PairKind | None" = None
    operations: tuple[Operation, ...] = ()
    author: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        relative = PurePosixPath(self.path)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(f"expected a path below the dataset's root, found {self.path!r}")
        if self.split is not None and self.split not in SPLITS:
            raise ValueError(f"{self.path}: expected a split of {', '.join(SPLITS)} or None, found {self.split!r}")
        score = (self.mos, self.mos_original, self.mos_low, self.mos_high, self.mos_ascending)
        if any(value is None for value in score) != all(value is None for value in score):
            raise ValueError(f"{self.path}: a score needs its value, scale and direction, found {score}")
        if self.mos is not None and not 0 <= self.mos <= 100:
            raise ValueError(f"{self.path}: expected a score from 0 to 100, found {self.mos}")
        if len({value is None for value in (self.pair, self.role, self.kind)}) != 1:
            raise ValueError(f"{self.path}: pair, role and kind go together, found {self.pair, self.role, self.kind}")

        odd = [
            operation.name for operation in self.operations if self.role == "target" and operation.name not in ADDABLE
        ]
        if odd:
            raise ValueError(
                f"{self.path}: expected operations of a target among {', '.join(ADDABLE)}, found {', '.join(odd)}; "
                "what spoils a photo is recorded with the input"
            )

    @property
    def group(self) -> str:
        """Records of one group must share a split: the pair, or else the scene, or else the photo itself."""
        return self.pair or self.scene or f"{self.dataset}/{self.path}"
