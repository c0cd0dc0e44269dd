"""Pairs of two sizes: laid over each other by their content as editors and cameras make them differ, or left out."""

import hashlib
import math
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from components.data.alignment import Alignment, size_of
from components.data.building import BuildSettings, build
from components.data.pairs import KINDS, PairReader, rebuild_pair
from components.data.registration import align, is_displaced
from components.data.sources.base import open_source
from components.data.synthesis import SynthesisSettings, synthesize
from components.imaging.photo import Photo, quantize, read_photo, resize, write_photo
from components.photometry.operations import Operation, apply_operations
from tests.conftest import make_photo
from tests.data.test_building import Listed

SAMPLE = Path(__file__).parent.parent.parent / "data" / "photos"
EDIT = (Operation(name="exposure", amount=0.6), Operation(name="saturation", amount=0.5))
FIELDS = ("xx", "xy", "x0", "yx", "yy", "y0")


@pytest.fixture(scope="module")
def photo() -> Tensor:
    return read_photo(SAMPLE / "astronaut.jpg").pixels[:, :, :480]


def straightened(shape: tuple[int, int], degrees: float, share: float) -> tuple[Alignment, tuple[int, int]]:
    """Where a straightened crop lies in a photo of height and width, and its size."""
    height, width = shape
    high, wide = round(0.9 * share * height), round(share * width)
    turn = math.radians(degrees)
    xx, xy = math.cos(turn) * wide / width, -math.sin(turn) * high / width
    yx, yy = math.sin(turn) * wide / height, math.cos(turn) * high / height
    return Alignment(xx=xx, xy=xy, x0=0.52 - (xx + xy) / 2, yx=yx, yy=yy, y0=0.47 - (yx + yy) / 2), (high, wide)


@pytest.mark.slow
@pytest.mark.parametrize(("degrees", "share"), [(0.0, 0.8), (3.3, 0.75), (-1.2, 0.9), (90.0, 0.7)])
def test_a_crop_that_was_straightened_and_edited_is_found(photo: Tensor, degrees: float, share: float) -> None:
    truth, size = straightened(size_of(photo), degrees, share)
    edited = apply_operations(truth.lay(photo, size), EDIT)
    found = align(photo, edited)
    assert found is not None
    assert max(abs(getattr(found, name) - getattr(truth, name)) for name in FIELDS) < 1.5e-3  # of a side
    laid = apply_operations(found.lay(photo, size), EDIT)
    assert (laid - edited)[:, 8:-8, 8:-8].abs().mean() < 0.01


@pytest.mark.parametrize(("down", "across"), [(0, 0), (1, 1), (9, -14), (-20, 0), (0, 19)])
def test_content_that_is_shifted_in_a_picture_of_the_same_size_is_told(photo: Tensor, down: int, across: int) -> None:
    height, width = photo.shape[1] - 40, photo.shape[2] - 40
    one, other = (
        photo[:, top : top + height, left : left + width] for top, left in ((20, 20), (20 + down, 20 + across))
    )
    assert is_displaced(one, apply_operations(other, EDIT)) == (max(abs(down), abs(across)) > 2)


@pytest.mark.parametrize(
    ("fault", "amount"),
    [("motion_blur", 0.04), ("defocus_blur", 0.01), ("noise", 0.1), ("jpeg", 80), ("haze", 1), ("low_light", 3)],
)
def test_a_degraded_photo_is_not_called_shifted(photo: Tensor, fault: str, amount: float) -> None:
    operation = Operation(name=fault, amount=amount, seed=0)
    assert not is_displaced(apply_operations(photo, (operation,)), photo)


def test_a_pair_of_ones_own_that_is_shifted_is_left_out_and_told(tmp_path: Path, photo: Tensor) -> None:
    for number, left in ((0, 0), (1, 25)):
        one, other = (photo[:, number : 300 + number, at : 400 + at] for at in (10, 10 + left))
        write_photo(Photo(one), tmp_path / "mine" / "input" / f"{number}.png")
        write_photo(Photo(apply_operations(other, EDIT)), tmp_path / "mine" / "target" / f"{number}.png")
    source = open_source("paired_folder", tmp_path / "mine")
    manifest = build([source], tmp_path / "out", BuildSettings(scene_distance=None), photos_dir=tmp_path)
    assert {Path(record.path).name for record in manifest} == {"0.png"}
    reasons = {entry.path: entry.reason for entry in manifest.quarantine}
    assert "its content is shifted against" in str(reasons) and len(reasons) == 2


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_reduced_copy_with_a_flag_that_somebody_ignored_is_found(photo: Tensor, turns: int) -> None:
    turned = photo.rot90(turns, (1, 2))
    edited = apply_operations(resize(turned, (turned.shape[1] * 2 // 3, turned.shape[2] * 2 // 3)), EDIT)
    found = align(photo, edited)
    assert found is not None and abs(abs(found.xx * found.yy - found.xy * found.yx) - 1) < 0.01
    laid = apply_operations(found.lay(photo, size_of(edited)), EDIT)
    assert (laid - edited)[:, 4:-4, 4:-4].abs().mean() < 0.02


def test_a_few_pixels_more_at_the_edges_are_a_shift_and_no_scale(photo: Tensor) -> None:
    found = align(photo, photo[:, 6:-2, 4:-8])
    assert found is not None
    height, width = size_of(photo)
    expected = ((width - 12) / width, 0.0, 4 / width, 0.0, (height - 8) / height, 6 / height)
    assert [getattr(found, name) for name in FIELDS] == pytest.approx(expected, abs=1e-3)


def test_other_photos_and_wider_canvases_are_not_aligned(photo: Tensor) -> None:
    other = read_photo(SAMPLE / "chelsea.jpg").pixels
    assert align(photo, other) is None
    wider = torch.nn.functional.pad(photo, (120, 120, 0, 0), value=0.5)
    assert align(photo, wider) is None
    assert align(photo, torch.full((3, 300, 400), 0.5)) is None


def test_laying_does_not_enlarge_and_keeps_the_identity(photo: Tensor) -> None:
    whole = Alignment(xx=1.0, xy=0.0, x0=0.0, yx=0.0, yy=1.0, y0=0.0)
    assert torch.allclose(whole.lay(photo, size_of(photo)), photo, atol=1e-4)
    half = (photo.shape[1] // 2, photo.shape[2] // 2)
    assert torch.allclose(whole.lay(photo, half), resize(photo, half), atol=1e-3)


@pytest.fixture
def edits(tmp_path: Path, photo: Tensor) -> Path:
    """Somebody's pairs: one of one size, a straightened crop, one turned, one that shows something else."""
    root = tmp_path / "edits"
    truth, size = straightened(size_of(photo), 2.0, 0.8)
    targets = {
        "same": apply_operations(photo, EDIT),
        "crop": apply_operations(truth.lay(photo, size), EDIT),
        "turned": apply_operations(resize(photo.rot90(1, (1, 2)), (320, 340)), EDIT),
        "wrong": make_photo(100, 140, seed=4),
    }
    for number, (name, target) in enumerate(targets.items()):
        before = quantize(photo * (1 - 0.01 * number))  # other bytes
        write_photo(Photo(before), root / "input" / f"{name}.png")
        write_photo(Photo(quantize(target)), root / "target" / f"{name}.jpg")
    return root


@pytest.mark.slow
def test_a_pair_of_two_sizes_stops_nothing(edits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = open_source("paired_folder", edits, kind="enhancement")
    with caplog.at_level("INFO"):
        manifest = build([source], tmp_path / "out", BuildSettings(), photos_dir=edits)
    assert "4 pairs of several sizes, or of the user's own: 3 lie over each other by content, 1 do not" in caplog.text
    assert {Path(record.path).stem for record in manifest} == {"same", "crop", "turned"} and len(manifest) == 6
    reasons = {entry.path: entry.reason for entry in manifest.quarantine}
    assert reasons.keys() == {"input/wrong.png", "target/wrong.jpg"}
    assert reasons["target/wrong.jpg"].startswith("140x100 pixels beside 480x512 of input/wrong.png: not one picture")
    assert "has no usable target" in reasons["input/wrong.png"]

    settings = SynthesisSettings(short_side=48, stacked=1, **dict.fromkeys(KINDS, 0))
    synthesize(manifest, edits, tmp_path / "pairs", settings)
    made = {Path(str(pair.input_path)).stem: pair for pair in PairReader(tmp_path / "pairs") if not pair.operations}
    assert [name for name in ("same", "crop", "turned") if made[name].alignment] == ["crop", "turned"]
    for name, pair in made.items():
        redone = apply_operations(pair.input(), EDIT)
        assert (redone - pair.target())[:, 2:-2, 2:-2].abs().mean() < 0.05, name
    for pair in PairReader(tmp_path / "pairs"):
        assert rebuild_pair(pair, edits) == pair


@pytest.mark.slow
def test_of_several_targets_only_those_that_fit_stay(tmp_path: Path, photo: Tensor) -> None:
    root = tmp_path / "photos"
    for name, pixels in (("in", photo), ("a", photo * 0.9), ("b", make_photo(100, 140)), ("c", photo[:, 8:])):
        write_photo(Photo(quantize(pixels)), root / f"{name}.png")
    member = {"pair": "p", "kind": "enhancement"}
    entries = [("in.png", member | {"role": "input"}), *((f"{n}.png", member | {"role": "target"}) for n in "abc")]
    manifest = build([Listed(root, *entries)], tmp_path / "out", BuildSettings(), photos_dir=root)
    assert [record.path for record in manifest] == ["in.png", "a.png", "c.png"]
    assert [entry.path for entry in manifest.quarantine] == ["b.png"]


def test_sizes_are_compared_upright(tmp_path: Path, photo: Tensor) -> None:
    root = tmp_path / "edits"
    write_photo(Photo(photo), root / "input" / "a.png")
    stored = (photo * 229).to(torch.uint8).rot90(1, (1, 2)).permute(1, 2, 0).contiguous().numpy()
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "target").mkdir()
    Image.fromarray(stored).save(root / "target" / "a.jpg", exif=exif)
    manifest = build([open_source("paired_folder", root)], tmp_path / "out", BuildSettings(), photos_dir=root)
    assert {(record.width, record.height) for record in manifest} == {(480, 512)}
    assert len({hashlib.sha256((root / record.path).read_bytes()).hexdigest() for record in manifest}) == 2
