"""The offline annotator: its score against scikit-image, its findings against the faults that were put in."""

import math

import pytest
import torch
from skimage.color import deltaE_ciede2000, rgb2lab
from torch import Tensor

from components.annotation.offline import describe, read_histogram, score_of
from components.data.faults import SEVERITY, sample_faults
from components.photometry.operations import TONE, Operation, apply_operations
from components.reinforcement.rewards.attributes import apply_suggestions, attribute_distance
from components.verdict.grammar import parse, render
from tests.conftest import make_photo

WORDS = {
    "exposure": ("low", "high", 0),
    "contrast": ("low", "high", 0),
    "saturation": ("low", "high", 1),
    "temperature": ("cold", "warm", 1),
}


def view_of(photo: Tensor, *operations: Operation) -> Tensor:
    return apply_operations(photo, operations)


@pytest.mark.slow
def test_the_score_falls_with_ciede2000(photo: Tensor) -> None:
    view = view_of(photo, Operation(name="exposure", amount=0.8))
    arrays = [rgb2lab(x.permute(1, 2, 0).double().numpy()) for x in (view, photo)]
    assert score_of(view, photo) == pytest.approx(100 * math.exp(-deltaE_ciede2000(*arrays).mean() / 20), abs=0.05)
    assert score_of(photo, photo) == 100


def test_an_intact_photo_is_left_alone(photo: Tensor) -> None:
    verdict = describe(photo, photo, ())
    assert verdict.suggestions == () and verdict.score == 100
    assert verdict.reasoning[3:] == ("balanced.", "no edits.")
    assert "low" not in verdict.reasoning[0] and verdict.reasoning[0].startswith("clean;")


@pytest.mark.parametrize("name", TONE)
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("share", "severity"), [(0.1, "slight"), (0.5, "moderate"), (0.95, "severe")])
def test_a_fault_is_found_named_and_undone(photo: Tensor, name: str, sign: int, share: float, severity: str) -> None:
    low, high = SEVERITY[name]
    fault = Operation(name=name, amount=sign * (low + share * (high - low)))
    verdict = describe(view_of(photo, fault), photo, (fault,))
    negative, positive, section = WORDS[name]
    assert f"{name} {positive if sign > 0 else negative} {severity}" in verdict.reasoning[section]
    assert sum(reasoning.count("fine") for reasoning in verdict.reasoning) == 3
    (suggestion,) = verdict.suggestions
    assert suggestion.operation == name and suggestion.amount * sign < 0
    assert verdict.score < 100 and verdict.reasoning[4] == "1 edit."


def test_following_the_suggestions_brings_the_photo_back() -> None:
    generator = torch.Generator().manual_seed(0)
    for seed in range(8):
        photo, faults = make_photo(seed=seed), sample_faults(generator)
        view = view_of(photo, *faults)
        verdict = parse(render(describe(view, photo, faults)))
        mended = apply_suggestions(verdict, view)
        assert attribute_distance(mended, photo) < 0.6 * attribute_distance(view, photo)


def test_faults_of_one_kind_add_up_and_may_cancel(photo: Tensor) -> None:
    up, down = Operation(name="exposure", amount=0.5), Operation(name="exposure", amount=-0.5)
    assert describe(photo, photo, (up, down)).suggestions == ()
    (suggestion,) = describe(view_of(photo, down, down), photo, (down, down)).suggestions
    assert suggestion.amount == pytest.approx(1.0)


@pytest.mark.slow
def test_degradations_are_named_and_removed_first(photo: Tensor) -> None:
    operations = (Operation(name="exposure", amount=-0.8), Operation(name="noise", amount=0.05, seed=3))
    verdict = describe(view_of(photo, *operations), photo, operations)
    assert [s.operation for s in verdict.suggestions] == ["noise", "exposure"]
    assert verdict.reasoning[0].startswith("noise;") and verdict.reasoning[4] == "2 edits."


def test_peoples_opinion_replaces_the_score(photo: Tensor) -> None:
    assert describe(photo, photo, (), score=37.0).score == 37


@pytest.mark.parametrize(
    ("height", "width", "frame"), [(64, 96, "landscape"), (96, 64, "portrait"), (64, 64, "square"), (64, 68, "square")]
)
def test_the_frame_is_read_off_the_sides(height: int, width: int, frame: str) -> None:
    photo = make_photo(height, width)
    assert describe(photo, photo, ()).reasoning[2].startswith(f"{frame} frame")


@pytest.mark.parametrize(
    ("rows", "columns", "place"),
    [
        (slice(0, 16), slice(0, 16), "top left"),
        (slice(0, 16), slice(48, 64), "top right"),
        (slice(48, 64), slice(24, 40), "bottom"),
        (slice(24, 40), slice(24, 40), "centre"),
    ],
)
def test_the_weight_lies_where_the_detail_is(rows: slice, columns: slice, place: str) -> None:
    picture = torch.full((3, 64, 64), 0.5)
    picture[:, rows, columns] += 0.3 * torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert describe(picture, picture, ()).reasoning[2].endswith(f"weight {place}.")


def test_histograms_are_read_in_cielab(photo: Tensor) -> None:
    lab = rgb2lab(photo.permute(1, 2, 0).double().numpy())
    reading = read_histogram(photo)
    numbers = [float(word.strip(",")) for word in reading.light.split() if word.strip(",").isdigit()]
    expected = [lab[..., 0].mean(), *quantiles(lab[..., 0]), lab[..., 0].std()]
    assert numbers == pytest.approx(expected, abs=0.6)
    chroma = (lab[..., 1] ** 2 + lab[..., 2] ** 2) ** 0.5
    assert reading.colour.startswith(f"chroma {chroma.mean():.0f} to ")
    red = photo * torch.tensor([1.0, 0.6, 0.6])[:, None, None]
    assert "red" in read_histogram(red).colour and "green" in read_histogram(red.flip(0).roll(-1, 0)).colour


def quantiles(values) -> list[float]:
    return torch.from_numpy(values).flatten().quantile(torch.tensor([0.02, 0.98], dtype=torch.float64)).tolist()


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 5), (3, 8, 8)])
def test_pictures_without_detail_get_a_verdict(shape: tuple[int, int, int]) -> None:
    grey = torch.full(shape, 0.5)
    verdict = describe(grey, grey, ())
    assert "weight centre" in verdict.reasoning[2]
    assert parse(render(verdict)) == verdict
