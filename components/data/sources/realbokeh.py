"""RealBokeh: scenes at f/22 and at wider apertures (Seizinger et al. 2025, Bokehlicious).

Each scene's json names its photos and apertures. Ids restart in every split. Some training pairs are misaligned: those
of different size are laid over each other or left out at ingest, shifts within the frame are not looked for.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from components.data.sources import folders
from components.data.sources.base import MISSING, Skipped, Source, SourceRecord
from components.data.splits import SPLITS, Split
from components.photometry.bokeh import aperture_radius
from components.photometry.operations import KINDS, Operation
from components.strict import Strict

_KEYS = ("id", "source_image", "source_av", "target_images", "target_avs", "focal_length", "focus_plane_distance")
_UNCERTAINTY = "focus_plane_uncertainty"
_APERTURE = re.compile(r"_f(\d+(?:\.\d+)?)$")
NOT_WIDER = "its aperture is not wider than its input's"


class Realbokeh(Source):
    """A photo at f/22 (input) with those at wider apertures (targets, labelled "f_number=2"), under one pair.

    Each target records the depth-of-field operation that its optics amount to: a "bokeh" whose largest disc is that of
    a point at infinity. It says how much, not which pixels: the pair cannot be rebuilt from it. How far the published
    uncertainty of the focus distance lets that disc vary is in the labels "blur_low=" and "blur_high="; an instruction
    says how strong the blur is only where both ends agree, and the aperture always.
    """

    class Settings(Strict):
        sensor_short_side: float = Field(default=24.0, gt=0, description="Of the camera, millimetres; full frame 24.")

    name: ClassVar[str] = "realbokeh"
    layout: ClassVar[str] = (
        "{train,validation,test}/{in/<id>_f22.JPG, gt/<id>/<id>_f2.0.JPG, metadata/<id>.json}; json keys: "
        f"{', '.join(_KEYS)}; {_UNCERTAINTY} where it is known"
    )
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    homepage: ClassVar[str] = "https://github.com/TimSeizinger/Bokehlicious"

    def prepare(self) -> None:
        self.parts = [
            (split, self.require(self.root, split), self.require(self.root, split, "metadata"))
            for split in SPLITS
            if self.find(self.root, split)
        ]
        if not self.parts:
            raise self.error(self.root / "train", "missing, and so are validation and test")

    def scan(self) -> Iterator[SourceRecord | Skipped]:
        for split, base, metadata in self.parts:
            for name in folders.entries(metadata)[0]:
                if name.lower().endswith(".json"):
                    yield from self._scene(split, base, metadata / name)

    def _scene(self, split: Split, base: Path, path: Path) -> Iterator[SourceRecord | Skipped]:
        scene = self._read(path)
        photo = self._photo(base, scene["source_image"])
        if photo is None:
            yield self.skip(base / scene["source_image"], MISSING)
            return
        shared: dict[str, Any] = {"pair": f"{split}/{path.stem}", "kind": "depth_of_field"}
        labels = (f"f_number={scene['source_av']:g}", "all_in_focus")
        yield self.record(photo, split, role="input", labels=labels, **shared)
        for name, f_number in zip(scene["target_images"], scene["target_avs"], strict=True):
            target = self._photo(base, name)
            if target is None:
                yield self.skip(base / name, MISSING)
                continue
            if f_number >= scene["source_av"]:
                yield self.skip(target, NOT_WIDER)
                continue
            yield self.record(target, split, role="target", **self._blur(scene, f_number), **shared)

    def _read(self, path: Path) -> dict[str, Any]:
        """The json of one scene, checked: names, numbers, and that apertures are those in the names."""
        try:
            scene = json.loads(path.read_text("utf-8"))
        except (UnicodeDecodeError, json.JSONDecodeError) as problem:
            raise self.error(path, f"not a json file: {problem}") from problem
        if not isinstance(scene, dict) or (missing := [key for key in _KEYS if key not in scene]):
            raise self.error(path, f"missing keys: {', '.join(missing) if isinstance(scene, dict) else 'all'}")
        if str(scene["id"]) != path.stem:
            raise self.error(path, f"expected the id {path.stem}, found {scene['id']!r}")
        images, f_numbers = scene["target_images"], scene["target_avs"]
        if not isinstance(images, list) or not isinstance(f_numbers, list) or len(images) != len(f_numbers):
            raise self.error(path, "expected as many target_avs as target_images")
        for name in (scene["source_image"], *images):
            if not isinstance(name, str) or name.startswith("/") or ".." in name.split("/"):
                raise self.error(path, f"expected the name of a photo below {path.parent.parent}, found {name!r}")
        numbers = [scene["source_av"], scene["focal_length"], scene["focus_plane_distance"], *f_numbers]
        if not all(isinstance(number, int | float) and number > 0 for number in numbers):
            raise self.error(path, f"expected positive numbers, found {numbers}")
        uncertainty = scene.get(_UNCERTAINTY)
        if uncertainty is not None and not (isinstance(uncertainty, int | float) and uncertainty >= 0):
            raise self.error(path, f"expected {_UNCERTAINTY} in metres, found {uncertainty!r}")
        for name, f_number in zip(images, f_numbers, strict=True):
            named = _APERTURE.search(Path(name).stem)
            if named is None or float(named[1]) != float(f_number):
                raise self.error(path, f"target_avs does not follow target_images: {f_number} beside {name}")
        return scene

    def _blur(self, scene: dict[str, Any], f_number: float) -> dict[str, Any]:
        """Labels and operations of a target."""
        distance, uncertainty = float(scene["focus_plane_distance"]), float(scene.get(_UNCERTAINTY) or 0)
        amount = self._radius(scene, f_number, distance)
        labels = [f"f_number={f_number:g}"]
        if amount is None:  # focused nearer than the lens can: the distance is not to be trusted
            return {"labels": tuple(labels)}
        far, near = (self._radius(scene, f_number, distance + step) for step in (uncertainty, -uncertainty))
        labels += [f"blur_low={far:g}", f"blur_high={near if near is not None else KINDS['bokeh'].high:g}"]
        return {"labels": tuple(labels), "operations": (Operation(name="bokeh", amount=amount),)}

    def _radius(self, scene: dict[str, Any], f_number: float, distance: float) -> float | None:
        """Radius of the largest disc with the focus at ``distance`` metres; None where the lens cannot focus."""
        focal_length = float(scene["focal_length"])
        if 1000 * distance <= focal_length:
            return None
        radius = aperture_radius(f_number, focal_length, distance, sensor_short_side=self.settings.sensor_short_side)
        return round(min(radius, KINDS["bokeh"].high), 6)

    def _photo(self, base: Path, name: str) -> Path | None:
        folder, _, file = name.rpartition("/")
        return self.photo(base / folder, file)
