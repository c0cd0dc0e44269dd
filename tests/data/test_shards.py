"""Shards: what other WebDataset readers see, any sample by its number, the same from a bucket as from a disk."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import webdataset

from components.data.samples import SampleError
from components.data.shards import INDEX_FILE, Sample, ShardSet, shard_origin, write_index, write_shard
from components.data.streaming import ShardStream
from components.imaging.photo import to_png_bytes
from tests.conftest import make_photo

SIZES = (5, 3, 7, 1, 4, 6, 2)
TOTAL = sum(SIZES)


def sample(number: int) -> tuple[str, Sample]:
    record = {"number": number, "split": "test" if number % 5 == 0 else "train"}
    members = {"input.png": bytes([number]) * (number * 37), "target.png": b"t%d" % number, "json": json.dumps(record)}
    return f"photo_{number:03d}", {name: v.encode() if isinstance(v, str) else v for name, v in members.items()}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """28 samples in seven shards."""
    folder, number, names = tmp_path / "shards", 0, []
    for shard, size in enumerate(SIZES):
        names.append(f"part-{shard}.tar")
        write_shard(folder / names[-1], (sample(number + index) for index in range(size)), f"recipe {shard}")
        number += size
    write_index(folder, names, ["split"])
    return folder


def numbers(stream: ShardStream) -> list[int]:
    return list(stream)


def number_of(found: Sample) -> int:
    return json.loads(found["json"])["number"]


def test_other_readers_open_the_shards(directory: Path) -> None:
    urls = [str(directory / f"part-{shard}.tar") for shard in range(len(SIZES))]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False))
    assert [entry["__key__"] for entry in theirs] == [sample(number)[0] for number in range(TOTAL)]
    for number, entry in enumerate(theirs):
        assert {name: entry[name] for name in ("input.png", "target.png", "json")} == sample(number)[1]
    with tarfile.open(urls[1]) as tar:
        assert tar.extractfile("photo_005.target.png").read() == b"t5"


def test_any_sample_by_its_number_and_selection_before_reading(directory: Path) -> None:
    shards = ShardSet(directory)
    assert len(shards) == TOTAL
    assert all(shards[number] == sample(number)[1] for number in reversed(range(TOTAL)))
    held_out = ShardSet(directory, {"split": ["test"]})
    assert [number_of(held_out[n]) for n in range(len(held_out))] == list(range(0, TOTAL, 5))
    with pytest.raises(IndexError):
        shards[TOTAL]
    with pytest.raises(ValueError, match="no column 'kind'"):
        ShardSet(directory, {"kind": ["x"]})
    (directory / INDEX_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="complete directory"):
        ShardSet(directory)


def test_the_size_of_a_picture_is_a_column(tmp_path: Path) -> None:
    pictures = {"a": make_photo(8, 12), "b": make_photo(20, 6)}
    write_shard(
        tmp_path / "x.tar", ((key, {"png": to_png_bytes(p), "json": b"{}"}) for key, p in pictures.items()), "x"
    )
    write_index(tmp_path, ["x.tar"], picture="png")
    shards = ShardSet(tmp_path)
    assert (shards.column("height"), shards.column("width"), shards.key(1)) == ([8, 20], [12, 6], "b")
    with pytest.raises(ValueError, match="a has no jpg"):
        write_index(tmp_path, ["x.tar"], picture="jpg")
    write_index(tmp_path, ["x.tar"])
    with pytest.raises(ValueError, match=r"no column 'height', only .* make it anew"):
        ShardSet(tmp_path).column("height")


def test_a_shard_that_was_cut_short_or_replaced_is_named_with_the_sample(directory: Path) -> None:
    shards, shard = ShardSet(directory), directory / "part-2.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    with pytest.raises(SampleError, match=r"part-2\.tar: photo_014 ends after \d+ of \d+ bytes"):
        shards[14]
    assert shards[0] == sample(0)[1]
    write_shard(shard, (sample(number) for number in range(9, 16)), "another recipe")
    with pytest.raises(SampleError, match=r"photo_010 is not where the index says, .* older than the shard"):
        shards[10]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="part-2"):
        shards[10]


def test_storage_that_says_no_for_a_while_is_asked_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shards, refusals, paused = ShardSet(directory), [OSError("503 slow down")] * 2, []
    read = shards.files.cat_file
    monkeypatch.setattr("components.data.shards.time.sleep", paused.append)

    def refusing(path: str, start: int, end: int) -> bytes:
        if refusals:
            raise refusals.pop()
        return read(path, start=start, end=end)

    monkeypatch.setattr(shards, "files", type("Bucket", (), {"cat_file": staticmethod(refusing)}))
    assert shards[3] == sample(3)[1]
    assert paused == [0.5, 2.0] and caplog.text.count("503 slow down; trying again") == 2
    refusals += [OSError("503 slow down")] * 9
    with pytest.raises(OSError, match="503"):
        shards[3]
    assert len(refusals) == 5


def test_shards_are_reproducible_whole_and_name_their_origin(directory: Path, tmp_path: Path) -> None:
    first = directory / "part-0.tar"
    write_shard(tmp_path / "again.tar", (sample(number) for number in range(5)), "recipe 0")
    assert (tmp_path / "again.tar").read_bytes() == first.read_bytes()
    assert shard_origin(first) == "recipe 0" and shard_origin(tmp_path / "absent.tar") is None
    (tmp_path / "cut.tar").write_bytes(first.read_bytes()[:5000])
    (tmp_path / "noise.tar").write_bytes(b"half a shard")
    assert shard_origin(tmp_path / "cut.tar") is None and shard_origin(tmp_path / "noise.tar") is None
    with pytest.raises(ValueError, match="without a dot"):
        write_shard(tmp_path / "bad.tar", [("a.b", {"json": b"{}"})], "x")
    assert not (tmp_path / "bad.tar").exists()
    with pytest.raises(ValueError, match="photo_000 occurs"):
        write_index(tmp_path, ["again.tar", "again.tar"])
    with pytest.raises(ValueError, match="lacks kind"):
        write_index(tmp_path, ["again.tar"], ["kind"])


def test_an_index_is_made_for_shards_of_other_writers(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "theirs.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("folder.v2/" + "long" * 40 + ".jpg", "folder.v2/" + "long" * 40 + ".cls"):
            member = tarfile.TarInfo(name)
            member.size = 4
            tar.addfile(member, io.BytesIO(name[-4:].encode()))
    write_index(tmp_path, ["theirs.tar"])
    shards = ShardSet(tmp_path)
    assert len(shards) == 1 and shards[0] == {"jpg": b".jpg", "cls": b".cls"}


def test_the_order_is_decided_by_seed_and_epoch(directory: Path) -> None:
    shards = ShardSet(directory)
    stream = ShardStream(shards, number_of, seed=3, window=2)
    epochs = [numbers(stream) for _ in range(3)]
    assert stream.epoch == 3 and len(stream) == TOTAL
    assert all(sorted(epoch) == list(range(TOTAL)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again = ShardStream(shards, number_of, seed=3, window=2)
    again.set_epoch(1)
    assert numbers(again) == epochs[1]
    assert numbers(ShardStream(shards, number_of, seed=4, window=2)) != epochs[0]
    assert numbers(ShardStream(shards, number_of, shuffle=False)) == list(range(TOTAL))
    with pytest.raises(ValueError, match="rank"):
        ShardStream(shards, number_of, rank=2, ranks=2)


@pytest.mark.parametrize("ranks", [2, 3, 9])
def test_ranks_share_an_epoch_evenly(directory: Path, ranks: int) -> None:
    shards = ShardSet(directory)
    whole = numbers(ShardStream(shards, number_of, seed=1))
    parts = [numbers(ShardStream(shards, number_of, seed=1, rank=rank, ranks=ranks)) for rank in range(ranks)]
    assert {len(part) for part in parts} == {TOTAL // ranks}
    assert [number for part in parts for number in part] == whole[: TOTAL // ranks * ranks]


def test_it_goes_on_at_the_exact_sample(directory: Path) -> None:
    shards = ShardSet(directory)
    reference = ShardStream(shards, number_of, seed=5, window=3, rank=1, ranks=2)
    expected = numbers(reference) + numbers(reference)
    for stop in range(len(expected)):
        stream = ShardStream(shards, number_of, seed=5, window=3, rank=1, ranks=2)
        seen, state = [], stream.state_dict()
        while len(seen) < stop:
            for number in stream:
                seen.append(number)
                state = json.loads(json.dumps(stream.state_dict()))
                if len(seen) == stop:
                    break
        resumed = ShardStream(shards, number_of, seed=5, window=3, rank=1, ranks=2)
        resumed.load_state_dict(state)
        while len(seen) < len(expected):
            seen += numbers(resumed)
        assert seen == expected
    with pytest.raises(ValueError, match="another stream: expected seed 6, found seed 5"):
        ShardStream(shards, number_of, seed=6, window=3, rank=1, ranks=2).load_state_dict(state)
    with pytest.raises(ValueError, match="samples"):
        ShardStream(ShardSet(directory, {"split": ["train"]}), number_of).load_state_dict(state)


def test_workers_of_a_data_loader_share_the_piece(directory: Path) -> None:
    stream = ShardStream(ShardSet(directory), number_of, seed=2)
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(loader) == list(range(TOTAL))


@pytest.fixture
def bucket(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict]]:
    """The shards in a bucket of a real S3 server on this machine: address, and options to reach it."""
    server_module = pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    server = server_module.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        storage = {"endpoint_url": f"http://{host}:{port}", "skip_instance_cache": True}
        system = s3fs.S3FileSystem(**storage)
        system.mkdir("photos")
        system.put(f"{directory}/", "photos/pairs/", recursive=True)
        yield "s3://photos/pairs", storage
    finally:
        server.stop()


@pytest.mark.slow
def test_a_bucket_gives_what_the_disk_gives(directory: Path, bucket: tuple[str, dict]) -> None:
    address, storage = bucket
    local, remote = ShardSet(directory), ShardSet(address, storage=storage)
    assert [remote[number] for number in (0, 11, TOTAL - 1)] == [local[number] for number in (0, 11, TOTAL - 1)]
    expected = numbers(ShardStream(local, number_of, seed=7, window=2))
    stream = ShardStream(remote, number_of, seed=7, window=2)
    seen = [number for number, _ in zip(stream, range(9), strict=False)]
    state = stream.state_dict() | {"position": len(seen)}
    resumed = ShardStream(local, number_of, seed=7, window=2)
    resumed.load_state_dict(state)
    assert seen + numbers(resumed) == expected
    with pytest.raises(FileNotFoundError, match="complete directory"):
        ShardSet("s3://photos/nothing", storage=storage)
