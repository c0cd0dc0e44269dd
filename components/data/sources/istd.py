"""ISTD and ISTD+: photos with a shadow, its mask, and the same scene without it (Wang et al. 2018; Le, Samaras 2019).

In plain ISTD the shadow-free photo was taken at another time and its colours differ outside the shadow too; ISTD+ has
them adjusted, and is preferred wherever it is there. Masks (the B folders) are not photos and are not read.
"""

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from components.data.sources.base import Skipped, Source, SourceRecord
from components.data.splits import PUBLISHED, Split
from components.strict import Strict

log = logging.getLogger(__name__)

_AUTHORS = "Wang, Li and Yang"
_ADJUSTED_BY, _ADJUSTED_AT = f"{_AUTHORS}; adjusted by Le and Samaras", "https://github.com/cvlab-stonybrook/SID"
_ADJUSTED = {"train": "train_C_fixed_ours", "test": "test_C_fixed_official"}


class Istd(Source):
    """Photos with a shadow (input) and without (target, labelled "version=istd" or "version=istd_plus")."""

    class Settings(Strict):
        targets: Literal["istd", "istd_plus"] | None = Field(default=None, description="None: ISTD+ where present.")

    name: ClassVar[str] = "istd"
    layout: ClassVar[str] = (
        "{train,test}/{train,test}_{A,B,C}/<same name>.png, A with shadow, B mask, C without; "
        "ISTD+ replaces C by train_C_fixed_ours and test_C_fixed_official, in the same folder or in the root"
    )
    licence: ClassVar[str] = "research and non-commercial purposes only (PCALab, NJUST)"
    homepage: ClassVar[str] = "https://github.com/DeepInsight-PCALab/ST-CGAN"

    def prepare(self) -> None:
        self.parts: list[tuple[Split, Path, Path, str]] = []
        for split in PUBLISHED:
            folder = self.find(self.root, split) or self.root
            inputs = self.find(folder, f"{split}_A")
            if inputs is not None:
                self.parts.append((split, inputs, *self._targets(split, folder)))
        if not self.parts:
            raise self.error(self.root / "train" / "train_A", "missing, and so is test/test_A")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for split, inputs, targets, version in self.parts:
            version_label = (f"version={version}",)
            for entry in self.paired_folders(
                inputs, targets, split, f"{split}/", labels=("shadow",), target_labels=version_label, author=_AUTHORS
            ):
                if version == "istd_plus" and isinstance(entry, SourceRecord) and entry.role == "target":
                    entry = replace(entry, author=_ADJUSTED_BY, source=_ADJUSTED_AT)
                yield entry

    def _targets(self, split: str, folder: Path) -> tuple[Path, str]:
        adjusted = self.find(folder, _ADJUSTED[split]) or self.find(self.root, _ADJUSTED[split])
        if self.settings.targets != "istd" and adjusted is not None:
            return adjusted, "istd_plus"
        if self.settings.targets == "istd_plus":
            raise self.error(folder / _ADJUSTED[split], "missing")
        targets = self.require(folder, f"{split}_C")
        log.warning("istd: %s: plain ISTD targets shift colours outside the shadow; get ISTD+ to avoid it", targets)
        return targets, "istd"
