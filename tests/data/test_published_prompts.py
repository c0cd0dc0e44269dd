"""Instructions of published pairs: of every dataset, each says what its pair does and nothing that it does not do."""

import re
from pathlib import Path
from typing import get_args

import pytest

from components.data.degradations import BOKEH_LEVELS
from components.data.pairs import PairKind
from components.data.prompts import PHRASES
from components.data.published_prompts import published_instruction
from components.data.sources.base import Source, SourceRecord, known_sources, open_source
from components.data.sources.kadid10k import DISTORTIONS
from components.photometry.operations import Operation
from components.seeding import generator_for
from tests.data.sources.layouts import save_all
from tests.data.sources.miniatures import MINIATURES, fivek_originals

FAULT = Operation(name="exposure", amount=-0.8)
DRAWS = 24
SAYS = {
    "blur": r"\b(?:de)?blur|shake|sharp",
    "motion_blur": r"blur|shake",
    "defocus_blur": r"focus|sharpen|lens blur",
    "noise": r"nois|grain",
    "jpeg": r"compression|JPEG",
    "jpeg2000": r"JPEG 2000",
    "haze": r"haz|fog",
    "low_light": r"low light|dark|night|underexposed",
    "rain": r"\b(?:de)?rain\b",
    "raindrop": r"raindrops",
    "night_rain": r"\b(?:de)?rain\b.*night",
    "shadow": r"shadow",
    "moire": r"moire",
    "gaussian_blur": r"blur",
    "colour_diffusion": r"bleed",
    "colour_shift": r"colour channels",
    "colour_quantisation": r"colour quantisation|colours that were reduced",
    "hsv_saturation": r"saturation",
    "lab_saturation": r"saturation",
    "denoised": r"denoising",
    "brightened": r"brightening|too bright",
    "darkened": r"darkening|too dark",
    "mean_shift": r"mean brightness",
    "jitter": r"jitter",
    "non_eccentricity_patch": r"patches",
    "pixelated": r"pixelation",
    "quantisation": r"tones",
    "colour_blocks": r"coloured blocks",
    "oversharpened": r"oversharpening",
    "contrast_change": r"contrast",
}
"""What an instruction has to say of an input with this label."""
GENERAL = {phrase.lower() for phrase in PHRASES["enhancement"]}
BACKGROUND = r"background|aperture|depth of field"


def wordings(before: SourceRecord, after: SourceRecord, *faults: Operation) -> set[str]:
    return {
        published_instruction(
            "look" if any(label.startswith("look=") for label in after.labels) else str(after.kind),
            *(before.labels, after.labels, before.operations, after.operations),
            *(generator_for(3, number), faults),
        )
        for number in range(DRAWS)
    }


def pairs_of(source: Source) -> list[tuple[SourceRecord, SourceRecord]]:
    records = list(source.records())
    inputs = [record for record in records if record.role == "input"]
    return [
        (before, after) for after in records if after.role == "target" for before in inputs if before.pair == after.pair
    ]


def source_of(name: str, root: Path) -> Source:
    (fivek_originals if name == "fivek_originals" else MINIATURES[name])(root)
    return open_source(name.removesuffix("_originals"), root)


def says_of(before: SourceRecord, after: SourceRecord) -> list[str]:
    """What has to be said of a pair, as patterns, from what its dataset records of it."""
    expected = [SAYS[label] for label in before.labels if label in SAYS]
    for label in after.labels:
        name, _, value = label.partition("=")
        if name == "look":
            expected.append(rf"\b{value.replace('_', ' ')}\b")
        if name == "f_number":
            expected += [rf"\bf/{re.escape(value)}(?!\.?\d)", BACKGROUND]
    return expected


RATED = {"ava", "koniq10k", "spaq", "bokehdiff"}
"""Datasets without pairs."""


def test_every_dataset_has_a_miniature() -> None:
    assert set(MINIATURES) | {"paired_folder", "single_folder"} == set(known_sources())


@pytest.mark.parametrize("name", sorted({*MINIATURES, "fivek_originals"} - RATED))
def test_no_pair_of_any_dataset_carries_an_instruction_that_its_operations_do_not(name: str, tmp_path: Path) -> None:
    found = pairs_of(source_of(name, tmp_path))
    assert found
    for before, after in found:
        expected = says_of(before, after)
        for sentence in wordings(before, after):
            general = any(phrase in sentence.lower() for phrase in GENERAL)
            assert general == (after.kind == "enhancement"), sentence
            assert expected or general
            assert all(re.search(pattern, sentence, re.IGNORECASE) for pattern in expected), sentence
            assert not re.search(r"\bEV\b|mired|%|[{}=_]", sentence)
            spread = re.search(BACKGROUND, sentence)
            assert bool(spread) == (after.kind == "depth_of_field"), sentence
        for sentence in wordings(before, after, FAULT):
            assert re.search(r"brighten|brighter|exposure|brightness", sentence, re.IGNORECASE)
            told = [*expected, *(["|".join(GENERAL)] if after.kind == "enhancement" else [])]
            assert all(re.search(pattern, sentence, re.IGNORECASE) for pattern in told), sentence


@pytest.mark.parametrize("kind", get_args(PairKind))
def test_a_pair_of_which_only_the_kind_is_known_is_told_by_its_kind(kind: PairKind, tmp_path: Path) -> None:
    says = {
        "retouching": r"retouch|edit",
        "restoration": r"restore|repair|undo",
        "multi_edit": r"(?:repair|restore).*(?:retouch|finish)",
        "depth_of_field": BACKGROUND,
        "enhancement": "|".join(GENERAL),
        "look": r"film",
    }
    save_all(tmp_path, ["input/1.png", "target/1.png"])
    ((before, after),) = pairs_of(open_source("paired_folder", tmp_path, kind=kind))
    for sentence in wordings(before, after):
        assert re.search(says[kind], sentence, re.IGNORECASE), sentence
        assert (sentence.rstrip(".").lower() in GENERAL) <= (kind in ("enhancement", "retouching"))


def test_no_wording_of_a_distortion_is_broken_english() -> None:
    for labels in DISTORTIONS:
        for number in range(DRAWS):
            text = published_instruction("restoration", labels, ("pristine",), (), (), generator_for(number))
            assert not re.search(
                r"\b(?:the|from the|off the) (?:\w+ed|brightened|contrast change)\b[.,]?$", text.rstrip(".")
            )
            clauses = re.split(r",|;| and ", re.sub("^In this photo, ", "", text))
            assert len(clauses) == 1 or "to a few" in text or "salt and pepper" in text, (
                f"one thing is said once: {text}"
            )


def test_labels_that_the_target_shares_are_not_to_be_removed() -> None:
    text = published_instruction("restoration", ("noise", "shadow"), ("noise",), (), (), generator_for(0))
    assert "shadow" in text.lower() and not re.search("nois|grain", text)


def test_operations_of_the_input_are_undone_and_those_of_the_target_are_done() -> None:
    darker = Operation(name="exposure", amount=-0.8)
    for number in range(DRAWS):
        undone = published_instruction("retouching", (), (), (darker,), (), generator_for(number)).lower()
        done = published_instruction("retouching", (), (), (), (darker,), generator_for(number)).lower()
        assert re.search("bright|increase|lift", undone) and not re.search("darke|decrease|down", undone)
        assert re.search("darke|decrease|down|lower", done) and not re.search("brighten|brighter|increase", done)
        blurred = published_instruction(
            "depth_of_field", (), (), (), (Operation(name="bokeh", amount=0.06),), generator_for(number)
        )
        assert "strongly" in blurred


def test_how_strong_a_blur_is_gets_said_only_where_the_focus_distance_is_certain_enough() -> None:
    slight, moderate = BOKEH_LEVELS["slight"], BOKEH_LEVELS["moderate"]

    def said(low: float, high: float) -> set[str]:
        labels = ("f_number=2.8", f"blur_low={low:g}", f"blur_high={high:g}")
        operations = (Operation(name="bokeh", amount=slight),)
        texts = [
            published_instruction("depth_of_field", (), labels, (), operations, generator_for(number))
            for number in range(DRAWS)
        ]
        assert all("f/2.8" in text for text in texts)
        return {word for text in texts for word in ("slightly", "moderately", "strongly") if word in text}

    assert said(slight, slight * 1.1) == {"slightly"}
    assert said(slight, moderate) == set()
