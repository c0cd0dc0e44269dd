"""Film looks learned from graded pairs, such as FilmSet's: a colour table a look, for grading any photo."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from components.data.alignment import size_of
from components.data.records import PhotoRecord
from components.data.registration import registered
from components.imaging.photo import Photo
from components.photometry.assets import keep_asset
from components.photometry.looks import fit_look, format_cube

log = logging.getLogger(__name__)

_LABEL = "look="


def learn_looks(
    records: Sequence[PhotoRecord], read: Callable[[PhotoRecord], Photo], assets: Path, most: int
) -> dict[str, str]:
    """Learn every look that a target of the train split is labelled with ("look=velvia"); asset names by look.

    Args:
        read: decodes a photo.
        assets: folder in which the tables are kept as .cube files.
        most: pairs that a look is learned from, the first of the manifest; 0 learns none.

    Raises:
        ValueError: input and target of a pair differ in size and cannot be laid over each other.
        UnreadablePhoto, FileNotFoundError: a photo has been damaged or removed since ingestion.
    """
    learnt = {}
    for name, pairs in sorted(graded_pairs(records, most).items()):
        fit = fit_look(_pictures(pairs, read), name)
        learnt[name] = keep_asset(assets, format_cube(fit.look).encode(), ".cube")
        log.info(
            "look %s of %d pairs: %.4f from input to target, %.4f of it is not colour alone",
            name,
            len(pairs),
            fit.error_before,
            fit.error_after,
        )
    return learnt


def graded_pairs(records: Sequence[PhotoRecord], most: int) -> Mapping[str, list[tuple[PhotoRecord, PhotoRecord]]]:
    """Input and target by look, of the train split: the first ``most`` of each."""
    inputs = {record.pair: record for record in records if record.pair and record.role == "input"}
    found: dict[str, list[tuple[PhotoRecord, PhotoRecord]]] = {}
    for record in records:
        if record.split != "train" or record.role != "target" or record.pair not in inputs:
            continue
        for label in record.labels:
            if label.startswith(_LABEL) and len(found.setdefault(label.removeprefix(_LABEL), [])) < most:
                found[label.removeprefix(_LABEL)].append((inputs[record.pair], record))
    return {name: pairs for name, pairs in found.items() if pairs}


def _pictures(
    pairs: Sequence[tuple[PhotoRecord, PhotoRecord]], read: Callable[[PhotoRecord], Photo]
) -> Iterator[tuple[Tensor, Tensor]]:
    for before, after in pairs:
        plain, graded = read(before).pixels, read(after).pixels
        alignment = registered(plain, graded, f"{before.path} and {after.path}")
        yield plain if alignment is None else alignment.lay(plain, size_of(graded)), graded
