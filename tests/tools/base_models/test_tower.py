"""Pretraining of the tower: the batched pass is the model's own, corrections mend, faults are told, and it learns."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VisionTransformerPretrainedModel

from components.data.faults import SEVERITY, sample_amounts
from components.imaging.photo import Photo, write_photo
from components.photometry.adjustments import adjust
from components.photometry.colour import delta_e_2000, lab_to_srgb, srgb_to_lab, srgb_to_linear
from components.photometry.operations import TONE
from components.training.tracker import NullTracker
from tests.conftest import make_photo
from tools.base_models.correction import NUMBERS, correct, lab_error
from tools.base_models.faults import edit_badly, nearest_amounts, spoil
from tools.base_models.tiles import Tiles, held_out, photos_in, source_of
from tools.base_models.tower import SIZES, Head, in_batches, initialise, look, train_tower


@pytest.fixture
def tower() -> Qwen2_5_VisionTransformerPretrainedModel:
    torch.manual_seed(0)
    vision = {"depth": 2, "hidden_size": 48, "intermediate_size": 64, "num_heads": 3, "out_hidden_size": 32}
    vision |= {"patch_size": 4, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [1]}
    return Qwen2_5_VisionTransformerPretrainedModel(Qwen2_5_VLConfig(vision_config=vision).vision_config)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(6):
        write_photo(Photo(make_photo(120, 150, seed=index)), folder / f"{'ab'[index % 2]}_{index}.png")
    return [(path, source_of(path, folder)) for path in photos_in(folder)]


def batch(count: int, height: int = 56, width: int = 80) -> Tensor:
    pictures = torch.stack([make_photo(height, width, seed=seed) for seed in range(count)])
    return (pictures * 255).round() / 255


@pytest.mark.parametrize("size", SIZES)
def test_the_batched_pass_is_the_towers_own(tower, size: tuple[int, int]) -> None:
    pictures = batch(3, *size)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    rows, columns = size[0] // 4, size[1] // 4
    normal = (pictures - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    cells = normal.view(3, 3, rows // 2, 2, 4, columns // 2, 2, 4).permute(0, 2, 5, 3, 6, 1, 4, 7)
    patches = cells.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1).reshape(3 * rows * columns, -1)
    grids = torch.tensor([[1, rows, columns]] * 3)
    with torch.no_grad():
        own = tower(patches, grid_thw=grids).pooler_output
        torch.testing.assert_close(look(tower, pictures).flatten(0, 1), own, rtol=1e-4, atol=1e-5)
        with in_batches(tower):
            torch.testing.assert_close(tower(patches, grid_thw=grids).pooler_output, own, rtol=1e-4, atol=1e-5)
            of_two_sizes = torch.tensor([[1, rows, columns], [1, 2 * rows, columns]])
            mixed = tower(patches, grid_thw=of_two_sizes).pooler_output
        torch.testing.assert_close(mixed, tower(patches, grid_thw=of_two_sizes).pooler_output)
        assert torch.equal(tower(patches, grid_thw=grids).pooler_output, own)


@pytest.mark.parametrize("size", [(56, 60), (56, 140)])
def test_sizes_that_the_batched_pass_cannot_take_are_refused(tower, size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="multiples of 8 up to 112"):
        look(tower, batch(1, *size))


def test_no_numbers_leave_the_colours() -> None:
    pictures = batch(2)
    torch.testing.assert_close(correct(pictures, torch.zeros(2, NUMBERS)), srgb_to_lab(pictures), rtol=0, atol=0.05)


def test_each_number_does_what_its_name_says() -> None:
    (picture,) = pictures = batch(1)

    def corrected(**numbers: float) -> Tensor:
        names = ("red", "green", "blue", "gamma", "slope", "pivot", "chroma", "lift")
        return correct(pictures, torch.tensor([[numbers.get(name, 0.0) for name in names]]))[0]

    lab = srgb_to_lab(picture)
    light = srgb_to_linear(lab_to_srgb(corrected(red=0.2, green=0.2, blue=0.2))).mean()
    torch.testing.assert_close(
        light.mean(), srgb_to_linear(picture).mean() * torch.tensor(0.2).exp(), rtol=0.03, atol=0
    )
    torch.testing.assert_close(corrected(chroma=0.3)[1:], lab[1:] * torch.tensor(0.3).exp(), rtol=1e-3, atol=0.1)
    torch.testing.assert_close(corrected(lift=0.1)[0].mean(), lab[0].mean() + 1, rtol=0.01, atol=0.1)
    assert corrected(slope=0.2)[0].std() > 1.15 * lab[0].std()
    assert corrected(gamma=0.2)[0].mean() < lab[0].mean()


def test_a_guess_can_be_improved_by_its_gradient() -> None:
    intact = batch(4)
    dark = (intact * 0.7).clamp(0, 1)
    numbers = torch.zeros(4, NUMBERS, requires_grad=True)
    truth = srgb_to_lab(intact)
    before = lab_error(correct(dark, numbers), truth).mean()
    optimiser = torch.optim.Adam([numbers], 0.05)
    for _ in range(60):
        loss = lab_error(correct(dark, numbers), truth).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    assert loss < 0.2 * before


def test_the_share_of_intact_pictures_is_left_alone() -> None:
    intact = batch(8, 28, 28).repeat(50, 1, 1, 1)
    spoilt = spoil(intact, torch.Generator().manual_seed(0), intact_share=0.25)
    assert spoilt.faulty.float().mean() == pytest.approx(0.75, abs=0.06)
    assert torch.equal(spoilt.pictures[~spoilt.faulty], intact[~spoilt.faulty])
    error = delta_e_2000(srgb_to_lab(spoilt.pictures), srgb_to_lab(intact)).mean((1, 2))[spoilt.faulty]
    assert (error > 0.3).float().mean() > 0.98
    assert (error < 3).float().mean() > 0.05, "some are hardly visible"
    again = spoil(intact, torch.Generator().manual_seed(0), intact_share=0.25)
    assert torch.equal(spoilt.pictures, again.pictures)


def test_the_projects_own_faults_are_told_by_their_amounts() -> None:
    intact = batch(6)
    amounts = sample_amounts(6, torch.Generator().manual_seed(2))
    made = [
        adjust(picture, list(zip(TONE, row, strict=True)), clamp=True)
        for picture, row in zip(intact, amounts.tolist(), strict=True)
    ]
    found = nearest_amounts(torch.stack(made), intact)
    scale = torch.tensor([SEVERITY[name][1] for name in TONE])
    assert ((found - amounts) / scale).abs().max() < 0.1


def test_what_an_editor_did_is_told_by_the_nearest_amounts() -> None:
    intact = batch(12)
    edited = edit_badly(intact, torch.Generator().manual_seed(1))
    found = nearest_amounts(edited, intact)
    nearest = torch.stack(
        [
            adjust(picture, list(zip(TONE, row, strict=True)), clamp=True)
            for picture, row in zip(intact, found.tolist(), strict=True)
        ]
    )
    lab = srgb_to_lab(edited)
    left, size = (delta_e_2000(srgb_to_lab(picture), lab).mean((1, 2)) for picture in (nearest, intact))
    assert left.mean() < 0.5 * size.mean()
    assert (left <= size + 0.2).all()


def test_tiles_are_crops_of_their_photos_and_the_same_every_time(photos: list[tuple[Path, str]]) -> None:
    tiles, again = (Tiles(photos, [(56, 84), (56, 56)], cuts=3) for _ in range(2))
    first, second = (t.draw(64, (56, 84), torch.Generator().manual_seed(4)) for t in (tiles, again))
    assert torch.equal(first, second)
    assert first.shape == (64, 3, 56, 84)
    assert tiles.whole((56, 56)).shape == (6, 3, 56, 56)
    assert len(tiles) == 6
    assert {source for _, source in photos} == {f"{photos[0][0].parent.name}/a", f"{photos[0][0].parent.name}/b"}


def test_one_photo_in_ten_is_held_out() -> None:
    shares = [held_out(Path(f"{index}.jpg")) for index in range(2000)]
    assert sum(shares) / 2000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.slow
def test_a_tower_learns_and_goes_on_after_an_interruption(tower, photos, tmp_path: Path) -> None:
    class Curve(NullTracker):
        def __init__(self) -> None:
            self.values: list[dict[str, float]] = []

        def metrics(self, values: dict[str, float], step: int) -> None:
            self.values.append(values)

    tiles, judged = Tiles(photos, SIZES, cuts=1), Tiles(photos, SIZES[:1], cuts=1)
    curve = Curve()
    train_tower(tower, tiles, judged, tmp_path, curve, steps=40, batch=16, learning_rate=3e-3, look_every=20)
    seen = [values["tower/held_out/intact_none"] for values in curve.values if "tower/held_out/intact_none" in values]
    assert len(seen) == 2
    (closing,) = (values for values in curve.values if "tower/averaged/before" in values)
    assert closing["tower/averaged/left_none"] < 1.1
    trained = {name: value.clone() for name, value in tower.state_dict().items()}
    train_tower(tower, tiles, judged, tmp_path, Curve(), steps=40, batch=16, learning_rate=3e-3, look_every=20)
    assert all(torch.equal(value, trained[name]) for name, value in tower.state_dict().items())


def test_an_untrained_head_leaves_photos_alone_and_expects_a_usual_error(tower) -> None:
    guess = Head(32)(look(tower, batch(2)))
    assert (guess.numbers == 0).all()
    assert guess.log_error.tolist() == pytest.approx([1.8, 1.8])


def test_new_weights_keep_the_size_of_what_passes_through(tower) -> None:
    small = look(tower, batch(4)).std()
    initialise(tower)
    assert small < 0.05 < 0.2 < look(tower, batch(4)).std() < 3
