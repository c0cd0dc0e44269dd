"""RealBokeh: a json for every scene, apertures as labels, ids that restart in every split."""

import json
from pathlib import Path

import pytest

from components.data.sources.base import MISSING, SourceError, open_source
from components.data.sources.realbokeh import NOT_WIDER
from tests.data.sources.layouts import pairs, read, save, skipped, write

SCENE = {
    "id": 1000,
    "source_image": "in/1000_f22.JPG",
    "source_av": 22.0,
    "target_images": ["gt/1000/1000_f2.0.JPG", "gt/1000/1000_f4.0.JPG", "gt/1000/1000_f16.JPG"],
    "target_avs": [2.0, 4.0, 16.0],
    "focal_length": 60,
    "ISO": 100,
    "EV": 11.375,
    "focus_plane_distance": 1.92,
    "focus_plane_uncertainty": 0.12,
}


def build(root: Path, split: str = "train", **changes: object) -> Path:
    scene = SCENE | changes
    for seed, name in enumerate((SCENE["source_image"], *SCENE["target_images"])):
        save(root / split / name, seed)
    return write(root / split / "metadata" / "1000.json", json.dumps(scene))


def test_one_input_and_a_target_for_each_aperture(tmp_path: Path) -> None:
    build(tmp_path)
    found = read(open_source("realbokeh", tmp_path))
    assert pairs(found) == {
        "realbokeh/train/1000": (["train/in/1000_f22.JPG"], [f"train/{name}" for name in SCENE["target_images"]])
    }
    assert [record.labels[0] for record in found.values()] == ["f_number=22", "f_number=2", "f_number=4", "f_number=16"]
    assert {record.kind for record in found.values()} == {"depth_of_field"}
    assert {record.licence for record in found.values()} == {"CC BY-NC-SA 4.0"}


def test_ids_restart_in_every_split(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        build(tmp_path, split)
    found = read(open_source("realbokeh", tmp_path))
    assert set(pairs(found)) == {f"realbokeh/{split}/1000" for split in ("train", "validation", "test")}
    assert all(record.split == path.split("/")[0] for path, record in found.items())


def test_the_blur_is_that_of_a_thin_lens(tmp_path: Path) -> None:
    build(tmp_path)
    found = read(open_source("realbokeh", tmp_path))
    # A lens of aperture D = f/N focused at s images infinity at f instead of v = fs/(s-f): by similar triangles the
    # cone that converges at f has the diameter D (v - f) / f at the sensor.
    image_distance = 60 * 1920 / (1920 - 60)
    expected = (60 / 2.0) * (image_distance - 60) / 60 / 2 / 24
    (operation,) = found["train/gt/1000/1000_f2.0.JPG"].operations
    assert operation.name == "bokeh" and operation.amount == pytest.approx(expected, abs=1e-6)
    (narrow,) = found["train/gt/1000/1000_f16.JPG"].operations
    assert operation.amount / narrow.amount == pytest.approx(8, rel=1e-3)
    assert found["train/in/1000_f22.JPG"].operations == ()
    smaller = read(open_source("realbokeh", tmp_path, sensor_short_side=12.0))
    assert smaller["train/gt/1000/1000_f2.0.JPG"].operations[0].amount == pytest.approx(2 * expected, abs=2e-6)


def test_the_uncertainty_of_the_focus_distance_is_kept_as_the_ends_of_the_blur(tmp_path: Path) -> None:
    build(tmp_path)
    target = "train/gt/1000/1000_f2.0.JPG"
    ends = [60**2 / 2.0 / (1000 * distance - 60) / 2 / 24 for distance in (1.92 + 0.12, 1.92 - 0.12)]
    low, high = (float(label.split("=")[1]) for label in read(open_source("realbokeh", tmp_path))[target].labels[1:])
    assert (low, high) == pytest.approx(ends, abs=1e-6)
    build(tmp_path, focus_plane_uncertainty=None)
    labels = read(open_source("realbokeh", tmp_path))[target].labels
    assert labels[1].removeprefix("blur_low=") == labels[2].removeprefix("blur_high=")
    build(tmp_path, focus_plane_uncertainty=1.9)  # nearer than the lens can focus: as much as there is
    assert read(open_source("realbokeh", tmp_path))[target].labels[2] == "blur_high=0.25"


def test_a_target_that_is_not_taken_wider_open_is_skipped(tmp_path: Path) -> None:
    build(tmp_path, source_av=4.0)
    source = open_source("realbokeh", tmp_path)
    assert set(skipped(source)) == {"train/gt/1000/1000_f4.0.JPG", "train/gt/1000/1000_f16.JPG"}
    assert set(skipped(source).values()) == {NOT_WIDER}


def test_a_target_that_is_missing_is_skipped(tmp_path: Path) -> None:
    build(tmp_path)
    (tmp_path / "train/gt/1000/1000_f16.JPG").unlink()
    source = open_source("realbokeh", tmp_path)
    assert len(read(source)) == 3
    assert skipped(source) == {"train/gt/1000/1000_f16.JPG": MISSING}


def test_a_scene_without_its_input_is_skipped_and_cases_are_forgiven(tmp_path: Path) -> None:
    build(tmp_path)
    photo = tmp_path / "train/in/1000_f22.JPG"
    photo.rename(photo.with_suffix(".jpg"))
    assert "train/in/1000_f22.jpg" in read(open_source("realbokeh", tmp_path))
    photo.with_suffix(".jpg").unlink()
    source = open_source("realbokeh", tmp_path)
    assert skipped(source) == {"train/in/1000_f22.JPG": MISSING}
    with pytest.raises(SourceError, match="not a single photo found"):
        list(source.records())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"target_avs": [2.0, 4.0]}, "as many target_avs as target_images"),
        ({"target_avs": [4.0, 2.0, 16.0]}, "target_avs does not follow target_images: 4.0 beside .*_f2.0.JPG"),
        ({"target_avs": [2.0, 4.0, "16"]}, "expected positive numbers"),
        ({"id": 999}, "expected the id 1000, found 999"),
        ({"source_image": "../secret.jpg"}, "expected the name of a photo below"),
        ({"focal_length": 0}, "expected positive numbers"),
        ({"focus_plane_uncertainty": -1}, "expected focus_plane_uncertainty in metres, found -1"),
    ],
)
def test_an_altered_json_is_an_error(changes: dict, words: str, tmp_path: Path) -> None:
    path = build(tmp_path, **changes)
    with pytest.raises(SourceError, match=words) as caught:
        list(open_source("realbokeh", tmp_path).records())
    assert caught.value.path == path


def test_a_json_without_a_key_or_sense_is_an_error(tmp_path: Path) -> None:
    path = build(tmp_path)
    write(path, json.dumps({key: value for key, value in SCENE.items() if key != "target_avs"}))
    with pytest.raises(SourceError, match="missing keys: target_avs"):
        list(open_source("realbokeh", tmp_path).records())
    write(path, '{"id": 1000,')
    with pytest.raises(SourceError, match="not a json file"):
        list(open_source("realbokeh", tmp_path).records())
    write(path, "[]")
    with pytest.raises(SourceError, match="missing keys: all"):
        list(open_source("realbokeh", tmp_path).records())


def test_a_split_without_metadata_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "test" / "in" / "1_f22.JPG")
    with pytest.raises(SourceError, match="test/metadata: missing"):
        open_source("realbokeh", tmp_path)
