"""The operation record: validated, serialisable, replayed bit for bit, undone and named."""

import pytest
import torch
from pydantic import ValidationError

from components.photometry.assets import keep_asset
from components.photometry.attributes import difference
from components.photometry.operations import (
    CREATIVE,
    DEGRADATIONS,
    KINDS,
    TONE,
    Operation,
    apply_operations,
    inverse,
    label,
)
from tests.photometry.reference import applied, encode_mask

AMOUNTS = {
    "exposure": -0.8,
    "contrast": 0.3,
    "saturation": -0.4,
    "temperature": 25.0,
    "motion_blur": 0.08,
    "defocus_blur": 0.03,
    "noise": 0.04,
    "jpeg": 80.0,
    "haze": 1.0,
    "low_light": 2.0,
    "bokeh": 0.05,
}


def test_every_kind_is_listed_once():
    assert sorted((*TONE, *DEGRADATIONS, *CREATIVE)) == sorted(KINDS)
    assert sorted((*TONE, *DEGRADATIONS)) == sorted(AMOUNTS)


@pytest.mark.parametrize("name", list(AMOUNTS))
def test_same_seed_same_bytes_and_a_change(photo, name):
    operation = Operation(name=name, amount=AMOUNTS[name], seed=7)
    first, second = apply_operations(photo, [operation]), apply_operations(photo, [operation])
    assert torch.equal(first, second)
    assert first.shape == photo.shape and first.min() >= 0 and first.max() <= 1
    assert (first - photo).abs().mean() > 1e-3


@pytest.mark.parametrize("name", ["motion_blur", "noise", "haze", "low_light", "bokeh"])
def test_other_seed_other_result_and_no_global_state(photo, name):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    results = [apply_operations(photo, [Operation(name=name, amount=AMOUNTS[name], seed=s)]) for s in (1, 2)]
    assert not torch.equal(*results)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", TONE)
def test_difference_reads_the_amount_back(photo, name):
    operation = Operation(name=name, amount=AMOUNTS[name] / 2)
    moved = difference(photo, apply_operations(photo, [operation]))[name].item()
    assert moved == pytest.approx(operation.amount, rel=0.1)


def test_inverses_in_reverse_order_restore(photo):
    faults = [Operation(name=name, amount=AMOUNTS[name] / 2) for name in TONE]
    faulty = apply_operations(photo, faults)
    assert (faulty - photo).abs().max() > 0.05
    restored = apply_operations(faulty, [inverse(f) for f in reversed(faults)])
    torch.testing.assert_close(restored, photo, rtol=0, atol=1e-4)


def test_a_run_of_tone_operations_clamps_once(photo):
    there_and_back = [Operation(name="exposure", amount=3.0), Operation(name="exposure", amount=-3.0)]
    torch.testing.assert_close(apply_operations(photo, there_and_back), photo, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "run",
    [
        [("exposure", -1.2)],
        [("temperature", 70.0), ("exposure", 0.5)],
        [("contrast", 0.6), ("saturation", -0.7)],
        [("saturation", 0.8), ("exposure", 1.5), ("contrast", -0.6), ("temperature", -60.0)],
        [("temperature", 30.0), ("saturation", 0.4), ("contrast", 0.2), ("exposure", -0.3), ("saturation", -0.4)],
    ],
)
def test_compiled_runs_equal_the_adjustments_in_float64_one_by_one(photo, run):
    operations = [Operation(name=name, amount=amount) for name, amount in run]
    torch.testing.assert_close(
        apply_operations(photo, operations).double(), applied(photo.double(), operations), rtol=0, atol=2e-5
    )


def test_bokeh_takes_the_mask_it_names(photo, tmp_path):
    mask = torch.zeros(64, 96)
    mask[:, 48:] = 1
    name = keep_asset(tmp_path, encode_mask(mask), ".png")
    result = apply_operations(photo, [Operation(name="bokeh", amount=0.1, asset=name)], tmp_path)
    assert (result - photo)[:, 8:-8, 64:].abs().max() < 2e-3 < (result - photo)[:, :, :24].abs().mean()
    with pytest.raises(FileNotFoundError, match="none given"):
        apply_operations(photo, [Operation(name="bokeh", amount=0.1, asset=name)])


def test_order_is_as_listed(photo):
    blur, brighten = Operation(name="haze", amount=2.0), Operation(name="exposure", amount=1.0)
    assert not torch.allclose(apply_operations(photo, [blur, brighten]), apply_operations(photo, [brighten, blur]))


def test_degradation_after_tone_starts_from_a_clamped_picture(photo):
    run = [Operation(name="exposure", amount=4.0), Operation(name="defocus_blur", amount=0.0)]
    expected = apply_operations(photo, run[:1])
    torch.testing.assert_close(apply_operations(photo, run), expected, rtol=0, atol=2e-5)


def test_nothing_to_do_only_clamps(photo):
    assert torch.equal(apply_operations(photo, []), photo)
    assert apply_operations(photo * 3, []).max() == 1


@pytest.mark.parametrize("name", list(AMOUNTS))
@pytest.mark.parametrize("size", [(1, 1), (5, 3)])
@pytest.mark.parametrize("value", [0.0, 1.0, 4.0])
def test_extremes_of_amount_size_and_value(name, size, value):
    for amount in (KINDS[name].low, KINDS[name].high):
        result = apply_operations(torch.full((3, *size), value), [Operation(name=name, amount=amount)])
        assert result.shape == (3, *size) and result.isfinite().all()
        assert result.min() >= 0 and result.max() <= 1


@pytest.mark.parametrize("name", list(AMOUNTS))
def test_json_round_trip(name):
    operation = Operation(name=name, amount=AMOUNTS[name], seed=2**40)
    assert Operation.model_validate_json(operation.model_dump_json()) == operation
    assert Operation.model_validate(operation.model_dump()) == operation
    assert len({operation, operation.model_copy()}) == 1


def test_parameters_are_used(photo):
    plain = Operation(name="haze", amount=1.0)
    dark = Operation(name="haze", amount=1.0, parameters={"airlight": 0.3})
    assert apply_operations(photo, [dark]).mean() < apply_operations(photo, [plain]).mean()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"name": "sharpen", "amount": 1.0}, "unknown operation 'sharpen'"),
        ({"name": "exposure", "amount": 9.0}, r"exposure amount must lie in \[-6, 6\]"),
        ({"name": "noise", "amount": -0.1}, r"noise amount must lie in \[0, 0.3\]"),
        ({"name": "exposure", "amount": float("nan")}, "finite"),
        ({"name": "exposure", "amount": "1"}, "valid number"),
        ({"name": "exposure", "amount": 1.0, "seed": -1}, "greater than or equal to 0"),
        ({"name": "exposure", "amount": 1.0, "parameters": {"airlight": 1.0}}, "has no parameter 'airlight'"),
        ({"name": "haze", "amount": 1.0, "parameters": {"airlight": 2.0}}, "airlight must lie in"),
        ({"name": "haze", "amount": 1.0, "strength": 2.0}, "Extra inputs"),
        ({"name": "look", "amount": 1.0}, "look needs an asset, a .cube file"),
        ({"name": "look", "amount": 1.0, "asset": f"{'0' * 64}.png"}, "takes a .cube file"),
        ({"name": "noise", "amount": 0.1, "asset": f"{'0' * 64}.png"}, "noise takes no file"),
        ({"name": "bokeh", "amount": 0.1, "asset": "mask.png"}, "String should match"),
    ],
)
def test_bad_records_are_refused_with_a_reason(record, message):
    with pytest.raises(ValidationError, match=message):
        Operation.model_validate(record)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_degradations_have_no_inverse(name):
    with pytest.raises(ValueError, match="no inverse"):
        inverse(Operation(name=name, amount=AMOUNTS[name]))


def test_labels_say_what_is_wrong():
    expected = {
        "exposure": "underexposed by 0.8 EV",
        "contrast": "contrast raised to 123%",
        "saturation": "saturation reduced to 76%",
        "temperature": "too warm by 25 mired",
        "motion_blur": "motion blur over 8.0% of the short side",
        "defocus_blur": "out of focus by 3.0% of the short side",
        "noise": "noise of 4.0% at mid-grey",
        "jpeg": "JPEG compression at quality 20",
        "haze": "haze of optical depth 1.0",
        "low_light": "low light, short by 2.0 EV",
        "bokeh": "background blurred by 5.0% of the short side",
    }
    assert {name: label(Operation(name=name, amount=AMOUNTS[name])) for name in AMOUNTS} == expected
    assert label(Operation(name="temperature", amount=-30.0)) == "too cool by 30 mired"
    assert label(Operation(name="exposure", amount=0.5)) == "overexposed by 0.5 EV"
