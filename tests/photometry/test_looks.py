"""Film looks: tables learnt from graded pairs, against colour-science's interpolation and file reader."""

import colour
import numpy as np
import pytest
import torch

from components.photometry.assets import keep_asset
from components.photometry.looks import Look, LookSettings, apply_look, fit_look, format_cube, parse_cube
from components.photometry.operations import Operation, apply_operations


def grade(image: torch.Tensor) -> torch.Tensor:
    """A strong look: curves per channel and a mix of channels."""
    red, green, blue = image.unbind(-3)
    return torch.stack(
        (red**0.8, 0.9 * green + 0.1 * blue * red, 0.08 + 0.85 * (3 * blue**2 - 2 * blue**3)), dim=-3
    ).clamp(0, 1)


def colours(seed: int = 0, size: int = 160) -> torch.Tensor:
    """A picture that covers the whole RGB cube."""
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(seed))


def random_look(size: int = 5) -> Look:
    return Look('a "look"', torch.rand(size, size, size, 3, generator=torch.Generator().manual_seed(1)))


def test_tables_are_read_and_applied_as_colour_science_does(tmp_path):
    path = tmp_path / "look.cube"
    path.write_text(format_cube(random_look()))
    reference = colour.read_LUT(str(path))
    image = colours(2, 40)
    expected = reference.apply(
        image.permute(1, 2, 0).double().numpy(), interpolator=colour.algebra.table_interpolation_trilinear
    )
    np.testing.assert_allclose(apply_look(image, random_look()).permute(1, 2, 0), expected.clip(0, 1), atol=2e-6)


def test_files_written_by_colour_science_are_read(tmp_path):
    table = np.random.default_rng(0).random((4, 4, 4, 3))
    path = tmp_path / "reference.cube"
    colour.write_LUT(colour.LUT3D(table, name="reference"), str(path), decimals=9)
    look = parse_cube(path.read_text())
    assert look.title == "reference"
    np.testing.assert_allclose(look.table.permute(2, 1, 0, 3), table, atol=1e-7)


def test_text_round_trip_is_exact():
    look = random_look()
    read = parse_cube(format_cube(look))
    assert torch.equal(read.table, look.table) and read.title == "a 'look'"


def test_a_look_is_learnt_and_carries_over_to_other_photos(photo_factory):
    train = [photo_factory(seed=s) for s in range(4)] + [colours()]
    fit = fit_look([(x, grade(x)) for x in train], "film")
    assert fit.error_after < 0.006 < 0.04 < fit.error_before
    unseen = photo_factory(seed=9)
    assert (apply_look(unseen, fit.look) - grade(unseen)).abs().mean() < 0.004
    left = torch.cat([(apply_look(x, fit.look) - grade(x)).flatten() for x in train]).square().mean().sqrt()
    assert fit.error_after == pytest.approx(left.item(), rel=0.1), "the error that is reported is the error made"


def test_grain_and_few_colours_do_not_spoil_the_table(photo_factory):
    photo = photo_factory()
    grain = 0.03 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(3))
    look = fit_look([(photo, grade(photo) + grain)], "grainy").look
    assert (apply_look(photo, look) - grade(photo)).abs().mean() < 0.008
    far = torch.tensor([1.0, 0.0, 1.0])[:, None, None]
    assert (apply_look(far, look) - far).abs().max() < 0.4, "where nothing was seen, near to no change"


def test_equal_pairs_give_the_identity_and_a_share_lies_between():
    fit = fit_look([(colours(), colours())], "none")
    torch.testing.assert_close(apply_look(colours(1), fit.look), colours(1), rtol=0, atol=1e-6)
    image, look = colours(4, 30), random_look()
    half = (image + apply_look(image, look)) / 2
    torch.testing.assert_close(apply_look(image, look, 0.5), half, rtol=0, atol=1e-6)
    assert torch.equal(apply_look(image, look, 0.0), image)


def test_fitting_is_the_regularised_least_squares_solution():
    """Dense normal equations, built the long way, for a small table."""
    settings = LookSettings(size=3, smoothness=0.01, identity=0.02, pixels=200)
    source, target = colours(5, 10), grade(colours(5, 10))
    table = fit_look([(source, target)], "small", settings).look.table.double().numpy()
    x = source.flatten(1).T.double().numpy()
    hat = np.maximum(0, 1 - np.abs(2 * x[:, :, None] - np.arange(3)))  # (n, channel, node)
    design = np.einsum("nb,ng,nr->nbgr", hat[:, 2], hat[:, 1], hat[:, 0]).reshape(len(x), 27)
    second, one = np.array([[1.0, -2.0, 1.0]]), np.eye(3)
    bends = [np.kron(np.kron(second, one), one), np.kron(np.kron(one, second), one), np.kron(np.kron(one, one), second)]
    stacked = np.concatenate(
        [design / len(x) ** 0.5, *[0.01**0.5 * bend for bend in bends], 0.02**0.5 * np.eye(27)], axis=0
    )
    change = (target - source).flatten(1).T.double().numpy() / len(x) ** 0.5
    right = np.concatenate([change, np.zeros((stacked.shape[0] - len(x), 3))])
    distance = np.linalg.lstsq(stacked, right, rcond=None)[0]
    steps = np.linspace(0, 1, 3)
    identity = np.stack(np.meshgrid(steps, steps, steps, indexing="ij")[::-1], axis=-1)
    np.testing.assert_allclose(table, identity + distance.reshape(3, 3, 3, 3), atol=1e-6)


def test_as_an_operation_it_rebuilds_from_its_record(photo, tmp_path):
    name = keep_asset(tmp_path, format_cube(random_look()).encode(), ".cube")
    operation = Operation(name="look", amount=0.7, asset=name)
    again = Operation.model_validate_json(operation.model_dump_json())
    first = apply_operations(photo, [operation], tmp_path)
    assert torch.equal(first, apply_operations(photo, [again], tmp_path))
    torch.testing.assert_close(first, apply_look(photo, random_look(), 0.7), rtol=0, atol=1e-7)
    (tmp_path / name).write_text("changed")
    with pytest.raises(ValueError, match="expected the content of its name"):
        apply_operations(photo, [operation], tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match="copy the assets"):
        apply_operations(photo, [operation], tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("LUT_1D_SIZE 4\n", "three-dimensional"),
        ("LUT_3D_SIZE 2\n0 0 0\n", "1 rows"),
        ("LUT_3D_SIZE x\n", "a number up to 256"),
        ("LUT_3D_SIZE 999999\n", "a number up to 256"),
        ("LUT_3D_SIZE 2\n0 0\n", "three numbers"),
        ("DOMAIN_MAX 2 2 2\n", "domain from 0 to 1"),
        ("LUT_3D_SIZE 2\n" + "nan 0 0\n" * 8, "three-dimensional|finite"),
        ("LUT_3D_SIZE 2\n" + "1e99 0 0\n" * 8, "finite"),
    ],
)
def test_other_files_are_refused_with_a_reason(text, message):
    with pytest.raises(ValueError, match=message):
        parse_cube(text)


def test_pairs_must_be_aligned_and_there(photo):
    with pytest.raises(ValueError, match="one size"):
        fit_look([(photo, photo[:, 1:])], "x")
    with pytest.raises(ValueError, match="at least one pair"):
        fit_look([], "x")
