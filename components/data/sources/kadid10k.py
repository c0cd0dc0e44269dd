"""KADID-10k: 81 pristine photos, each with 25 distortions at 5 levels, rated (Lin, Hosu, Saupe 2019, QoMEX).

Despite its name the column dmos is higher-is-better, 1 to 5; the column var is a standard deviation. The levels of the
types 18 (mean shift) and 25 (contrast change) go through zero, so a higher level is not a worse photo: they are
labelled "level=", the others "severity=".
"""

import re
from collections.abc import Iterator
from typing import ClassVar

from components.data.sources.base import MISSING, Skipped, Source, SourceRecord

DISTORTIONS: tuple[tuple[str, ...], ...] = (
    ("gaussian_blur",),
    ("lens_blur", "defocus_blur"),
    ("motion_blur",),
    ("colour_diffusion",),
    ("colour_shift",),
    ("colour_quantisation",),
    ("hsv_saturation",),
    ("lab_saturation",),
    ("jpeg2000",),
    ("jpeg",),
    ("white_noise", "noise"),
    ("colour_component_noise", "noise"),
    ("impulse_noise", "noise"),
    ("multiplicative_noise", "noise"),
    ("denoised",),
    ("brightened",),
    ("darkened",),
    ("mean_shift",),
    ("jitter",),
    ("non_eccentricity_patch",),
    ("pixelated",),
    ("quantisation",),
    ("colour_blocks",),
    ("oversharpened",),
    ("contrast_change",),
)
"""Labels of the types 01..25; the second one, where there is one, is the project's name of the operation."""
_NOT_MONOTONIC = (18, 25)
_NAME = re.compile(r"(I\d\d)_(\d\d)_(\d\d)\.png", re.IGNORECASE)


class Kadid10k(Source):
    """Rated distorted photos (input), each paired with its reference (target). No split is published.

    All versions of one photo form one pair, and so one group: a split must not divide them. Where the reference is
    missing they are rated photos of one scene, which share a split all the same; where it is damaged, the build of the
    manifest makes them that.
    """

    name: ClassVar[str] = "kadid10k"
    layout: ClassVar[str] = (
        "images/I01.png (reference), images/I01_01_01.png (reference, type 01-25, level 01-05); "
        "dmos.csv (dist_img, ref_img, dmos, var)"
    )
    licence: ClassVar[str] = "research use; pristine photos from Pixabay under its licence"
    homepage: ClassVar[str] = "http://database.mmsp-kn.de/kadid-10k-database.html"

    def prepare(self) -> None:
        self.table = self.needed("dmos.csv")
        self.photos = self.innermost(self.find(self.table.parent, "images") or self.needed("images"))

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        references: dict[str, bool] = {}  # 81 names: whether the file is there
        for line, row in self.rows(self.table, ("dist_img", "ref_img", "dmos", "var")):
            named = _NAME.fullmatch(row["dist_img"])
            if named is None or not (1 <= int(named[2]) <= 25 and 1 <= int(named[3]) <= 5):
                name = row["dist_img"]
                raise self.error(self.table, f"line {line}: expected a name like I01_01_01.png, found {name!r}")
            reference, kind, level = named[1].upper(), int(named[2]), int(named[3])
            if row["ref_img"].upper() != f"{reference}.PNG":
                raise self.error(
                    self.table, f"line {line}: expected {reference}.png as the reference, found {row['ref_img']!r}"
                )
            if reference not in references:
                target = self.photo(self.photos, row["ref_img"])
                references[reference] = target is not None
                if target is None:
                    yield self.skip(self.photos / row["ref_img"], MISSING)
                else:
                    labels = ("pristine",)
                    yield self.record(target, None, pair=reference, role="target", kind="restoration", labels=labels)
            path = self.photo(self.photos, row["dist_img"])
            if path is None:
                yield self.skip(self.photos / row["dist_img"], MISSING)
                continue
            value = self.number(row["dmos"], self.table, line, "dmos")
            measure = "level" if kind in _NOT_MONOTONIC else "severity"
            whole = references[reference]
            pair = {"pair": reference, "role": "input", "kind": "restoration"} if whole else {"scene": reference}
            rating = self.score(value, 1, 5, self.table, line)
            yield self.record(path, None, labels=(*DISTORTIONS[kind - 1], f"{measure}={level}"), **pair, **rating)
