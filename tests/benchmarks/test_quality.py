"""The benchmark on photos that nobody chose: its cases, its curves, and the regression it trains."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import quality
from benchmarks.quality import LADDERS, STRENGTHS, Edited, cases, curve, judge, of_baseline, of_regression, restrained
from benchmarks.regression import SIDE, Regression, train_regression
from components.command_line import run
from components.evaluation.baselines import BASELINES
from components.imaging.photo import Photo, write_photo
from components.metrics.tables import BootstrapSettings
from tests.conftest import make_photo

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(4):
        write_photo(Photo(make_photo(70, 90, seed=index)), tmp_path / "photos" / f"{index}.png")
    return tmp_path / "photos"


def darken(picture: Tensor) -> Edited:
    """Finds a photo the worse the brighter it is, and takes up to half of the light."""
    return Edited(float(picture.mean() * 100), [picture * (1 - strength / 2) for strength in STRENGTHS])


def test_the_first_case_is_the_photo_and_the_others_are_faulty() -> None:
    photo = (make_photo(40, 60, seed=1) * 255).round() / 255
    found = cases(photo, "a.jpg", views=2, seed=0)
    assert [family for family, _ in found] == ["intact", "own", "library", "own", "library"]
    assert torch.equal(found[0][1], photo)
    assert all(not torch.equal(picture, photo) for _, picture in found[1:])
    again = cases(photo, "a.jpg", views=2, seed=0)
    assert all(torch.equal(one[1], other[1]) for one, other in zip(found, again, strict=True))


def test_a_restraint_chooses_between_no_edit_and_the_whole(folder: Path) -> None:
    rows = judge(sorted(folder.iterdir()), {"darken": darken, "auto_contrast": of_baseline("auto_contrast")}, 64, 1)
    ours = rows[rows.method == "darken"]
    assert len(ours) == 4 * 3
    assert (ours[ours.family == "intact"]["0.0"] == 0).all()
    np.testing.assert_allclose(restrained(ours, 0, 0), ours["1.0"])
    np.testing.assert_allclose(restrained(ours, 100, 5), ours["0.0"])
    half = restrained(ours.assign(fault=10.0), 5, 10)
    np.testing.assert_allclose(half, ours["0.5"])


def test_the_curve_is_what_is_left_against_what_is_harmed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LADDERS, "darken", ((0, 0), (100, 5)))
    rows = judge(sorted(folder.iterdir()), {"darken": darken}, 64, 1)
    whole, none = curve(rows, "darken", BootstrapSettings(resamples=100))
    own = rows[rows.family == "own"]
    assert whole["own"].value == pytest.approx(own["1.0"].mean() / own["0.0"].mean())
    assert whole["intact"] == pytest.approx(rows[rows.family == "intact"]["1.0"].mean())
    assert whole["visible"] == 1
    assert (none["own"].value, none["library"].value, none["intact"], none["visible"]) == (1, 1, 0, 0)


def test_a_baseline_is_mixed_with_the_photo() -> None:
    photo = make_photo(40, 60, seed=1) * 0.5
    edited = of_baseline("auto_contrast")(photo)
    assert torch.equal(edited.pictures[0], photo)
    torch.testing.assert_close(edited.pictures[-1], BASELINES["auto_contrast"](photo))


def test_the_regression_learns_in_seconds_and_starts_from_no_edit(folder: Path, monkeypatch) -> None:
    untrained = Regression().eval()
    photo = make_photo(64, 64, seed=9)
    torch.testing.assert_close(untrained.edit(photo), photo, rtol=0, atol=2e-3)
    monkeypatch.setattr("benchmarks.regression._BATCH", 16)
    monkeypatch.setattr("benchmarks.regression.own_photos", lambda folder, split: sorted(folder.iterdir()))
    net = train_regression(folder, [], minutes=0.1)
    assert not torch.allclose(net.last.weight, untrained.last.weight)
    edited = of_regression(net)(photo)
    assert edited.fault >= 0 and len(edited.pictures) == len(STRENGTHS)
    assert torch.equal(edited.pictures[0], photo)
    assert SIDE == 64


def test_the_command_prints_the_curves(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(quality.Enhancer, "load", lambda package, placement: None)
    monkeypatch.setattr(quality, "of_package", lambda enhancer: darken)
    out = tmp_path / "quality.parquet"
    arguments = ["--on", str(folder), "--minutes", "0", "--side", "48", "--most", "2", "--out", str(out)]
    assert run(quality.main, arguments) == 0
    printed = capsys.readouterr().out
    assert "auto_contrast" in printed and "0 + 5" in printed and "none" in printed
    assert out.is_file()
