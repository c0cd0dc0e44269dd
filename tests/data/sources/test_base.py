"""The adapters' common ground: discovery, records that cannot be inconsistent, counted skips, errors that help."""

import logging
import tracemalloc
from pathlib import Path

import pytest
from pydantic import ValidationError

from components.data.pairs import KINDS
from components.data.sources import base
from components.data.sources.base import (
    Skipped,
    Source,
    SourceError,
    SourceRecord,
    known_sources,
    normalise_score,
    open_source,
    source_class,
)
from components.photometry.operations import Operation
from tests.data.sources.layouts import save, write
from tests.data.sources.miniatures import MINIATURES

PUBLISHED = {
    "koniq10k", "kadid10k", "spaq", "foundir", "realblur", "tmm22", "lol", "istd", "rdd", "srd", "gopro", "filmset",
    "realbokeh", "bokehdiff", "fivek", "ava",
}  # fmt: skip


def test_every_dataset_is_found_by_its_name() -> None:
    assert set(known_sources()) == PUBLISHED | {"paired_folder", "single_folder"}
    for name in known_sources():
        adapter = source_class(name)
        assert adapter.name == name and adapter.layout and adapter.licence


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown dataset 'koniq'; expected one of ava, bokehdiff, .*tmm22"):
        open_source("koniq", tmp_path)
    with pytest.raises(ValueError, match="unknown dataset 'base'"):
        open_source("base", tmp_path)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_an_absent_or_empty_folder_is_an_error_that_shows_the_layout(name: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=rf"{name}: .*absent: no such folder\nexpected layout: ") as caught:
        open_source(name, tmp_path / "absent")
    assert caught.value.dataset == name and caught.value.path == tmp_path / "absent"
    with pytest.raises(SourceError) as caught:
        open_source(name, tmp_path)
    assert str(caught.value).startswith(f"{name}: {tmp_path}")
    assert source_class(name).layout in str(caught.value)


def test_unknown_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="colour"):
        open_source("single_folder", tmp_path, colour="red")
    with pytest.raises(ValidationError, match="blurred"):
        open_source("gopro", tmp_path, blurred="blurry")


def test_scores_keep_their_direction() -> None:
    assert normalise_score(4, 1, 5, True) == 75
    assert normalise_score(4, 1, 5, False) == 25
    assert [normalise_score(value, 0, 100, True) for value in (0, 37.5, 100)] == [0, 37.5, 100]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"path": "/etc/photo.jpg"}, "below the dataset's root"),
        ({"path": "../photo.jpg"}, "below the dataset's root"),
        ({"split": "val"}, "expected a split"),
        ({"mos": 50.0}, "value, scale and direction"),
        ({"mos": 101.0, "mos_original": 9.0, "mos_low": 1.0, "mos_high": 5.0, "mos_ascending": True}, "from 0 to 100"),
        ({"pair": "a", "role": "input"}, "go together"),
        ({"role": "input", "kind": "restoration"}, "go together"),
        (
            {"pair": "a", "role": "target", "kind": "restoration", "operations": (Operation(name="haze", amount=1.0),)},
            "operations of a target among exposure, .*, found haze",
        ),
    ],
)
def test_inconsistent_records_cannot_be_made(wrong: dict, words: str) -> None:
    fields = {"path": "a.jpg", "dataset": "d", "split": None, "licence": "CC0-1.0"}
    with pytest.raises(ValueError, match=words):
        SourceRecord(**(fields | wrong))


def test_a_group_is_the_pair_or_the_photo() -> None:
    alone = SourceRecord("a.jpg", "d", None, "CC0-1.0")
    paired = SourceRecord("a.jpg", "d", None, "CC0-1.0", pair="d/1", role="input", kind="restoration")
    assert (alone.group, paired.group) == ("d/a.jpg", "d/1")


def test_skips_are_counted_by_reason_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.jpg", "b.png"):
        save(tmp_path / name)
    for name in ("notes.txt", "table.csv"):
        write(tmp_path / name, "text")
    source = open_source("single_folder", tmp_path, dataset="mine")
    with caplog.at_level(logging.WARNING, base.__name__):
        assert len(list(source.records())) == 2
    assert source.skipped == {"not a photo": 2}
    assert "mine: skipped 2 files: not a photo (the first: notes.txt)" in caplog.text
    assert len(list(source.records())) == 2 and source.skipped == {"not a photo": 2}, "counted twice"


def test_no_photo_at_all_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "notes.txt", "text")
    with pytest.raises(SourceError, match=r"not a single photo found \(not a photo: 1"):
        list(open_source("single_folder", tmp_path).records())


def test_memory_does_not_grow_with_the_records(tmp_path: Path) -> None:
    class Endless(Source):
        name, layout, licence, homepage = "endless", "-", "CC0-1.0", None

        def scan(self):
            for number in range(4_000):
                path = self.root / f"{number:08d}.jpg"
                yield self.skip(path, "missing") if number % 2 else self.record(path, None)

    source = Endless(tmp_path)
    tracemalloc.start()
    count = sum(1 for _ in source.records())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2_000 and source.skipped == {"missing": 2_000}
    assert peak < 200_000  # bytes; the records alone would take megabytes


def test_the_example_of_the_readme_works(tmp_path: Path) -> None:
    readme = Path(base.__file__).with_name("README.md").read_text("utf-8")
    (example,) = (block.split("```")[0] for block in readme.split("```python")[1:] if "class Rainy" in block)
    assert len(example.strip().splitlines()) < 40
    namespace = {"__name__": "rainy"}
    exec(compile(example, "rainy.py", "exec"), namespace)
    for name in ("train/rain/1.png", "train/clear/1.png", "test/rain/2.png", "test/clear/2.png", "test/rain/3.png"):
        save(tmp_path / name)
    source = namespace["Rainy"](tmp_path)
    assert [(record.path, record.pair, record.labels) for record in source.records()] == [
        ("train/rain/1.png", "rainy/train/1", ("rain",)),
        ("train/clear/1.png", "rainy/train/1", ()),
        ("test/rain/2.png", "rainy/test/2", ("rain",)),
        ("test/clear/2.png", "rainy/test/2", ()),
    ]
    assert source.skipped.total() == 1


def test_kinds_of_pairs_are_the_projects(tmp_path: Path) -> None:
    for name in ("input/1.jpg", "target/1.jpg"):
        save(tmp_path / name)
    for kind in KINDS:
        assert {record.kind for record in open_source("paired_folder", tmp_path, kind=kind).records()} == {kind}
    with pytest.raises(ValidationError, match="kind"):
        open_source("paired_folder", tmp_path, kind="other")


def test_skipped_files_have_relative_paths(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg")
    write(tmp_path / "inner" / "notes.txt", "text")
    found = [entry for entry in open_source("single_folder", tmp_path).scan() if isinstance(entry, Skipped)]
    assert found == [Skipped("inner/notes.txt", "not a photo")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bokehdiff", "the user's own"),
        ("filmset", "not stated"),
        ("foundir", "not stated"),
        ("istd", "research and non-commercial purposes only"),
        ("lol", "not stated"),
        ("rdd", "not stated"),
        ("spaq", "not stated"),
        ("srd", "not stated"),
    ],
)
def test_a_licence_is_what_is_published_or_that_none_is(name: str, words: str, tmp_path: Path) -> None:
    MINIATURES[name](tmp_path)
    assert {record.licence.startswith(words) for record in open_source(name, tmp_path).records()} == {True}


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_lists_and_tables_in_utf_16_are_read_as_those_in_utf_8(name: str, tmp_path: Path) -> None:
    """Excel, PowerShell and Notepad save them so, with a byte order mark."""
    MINIATURES[name](tmp_path)
    expected = list(open_source(name, tmp_path).records())
    lists = [path for path in tmp_path.rglob("*") if path.suffix in (".txt", ".csv")]
    for path in lists:
        path.write_bytes(path.read_bytes().decode("utf-8").encode("utf-16"))
    assert list(open_source(name, tmp_path).records()) == expected
    if lists:
        lists[0].write_bytes(b"\xff caf\xe9 \xff")
        with pytest.raises(SourceError):
            list(open_source(name, tmp_path).records())


def test_cutouts_and_backgrounds_are_the_users_own(tmp_path: Path) -> None:
    MINIATURES["bokehdiff"](tmp_path)
    settings = {"licence": "CC BY 4.0", "author": "A. Photographer"}
    for record in open_source("bokehdiff", tmp_path, **settings).records():
        assert (record.licence, record.author, record.source) == ("CC BY 4.0", "A. Photographer", None)


def test_authors_of_istd_are_those_of_its_photos(tmp_path: Path) -> None:
    MINIATURES["istd"](tmp_path)
    plain = list(open_source("istd", tmp_path).records())
    assert {(record.author, record.source) for record in plain} == {
        ("Wang, Li and Yang", "https://github.com/DeepInsight-PCALab/ST-CGAN")
    }
    (tmp_path / "train" / "train_C").rename(tmp_path / "train" / "train_C_fixed_ours")
    adjusted = {record.author for record in open_source("istd", tmp_path).records() if record.labels[0] != "shadow"}
    assert adjusted == {"Wang, Li and Yang", "Wang, Li and Yang; adjusted by Le and Samaras"}
