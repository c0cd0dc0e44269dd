"""Shards: plain tar files by WebDataset's convention, with an index that makes any sample readable where it lies.

A sample is the run of members that share a key: `<key>.input.png`, `<key>.target.png`, `<key>.json`. Any tar or
WebDataset reader opens the files; the `webdataset` library writes them. What that library lacks is here: an index, and
so random access, exact lengths, selection before reading, and a position that can be resumed at the exact sample
(`components.data.streaming`). Directories may be local paths or URLs that fsspec knows, such as s3://bucket/pairs.
"""

import json
import logging
import struct
import tarfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from fsspec import AbstractFileSystem
from webdataset import TarWriter

from components import files
from components.data.samples import SampleError

log = logging.getLogger(__name__)

INDEX_FILE = "index.parquet"
SUFFIX = ".tar"
_ORIGIN = "__origin__/key"  # WebDataset readers pass over names that begin with __
_BLOCK = tarfile.BLOCKSIZE
_NAME_LENGTH = 100  # of the name in a tar header
_PNG_SIZE = slice(16, 24)  # of the IHDR chunk, which always comes first
_PAUSES = (0.5, 2.0, 8.0)  # before a read that failed is tried again. Seconds
_INDEX = pyarrow.schema(
    [
        pyarrow.field("shard", pyarrow.string(), nullable=False),
        pyarrow.field("key", pyarrow.string(), nullable=False),
        pyarrow.field(
            "members",
            pyarrow.list_(
                pyarrow.struct(
                    [("name", pyarrow.string()), ("offset", pyarrow.int64()), ("size", pyarrow.int64())],
                )
            ),
            nullable=False,
        ),
    ]
)

Sample = dict[str, bytes]
"""Contents of a sample's members by what follows the key, such as "input.png" and "json"."""


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]], origin: str) -> None:
    """Write samples to one tar file, whole or not at all; the same samples always give the same bytes.

    Args:
        path: a local file; to put shards into a bucket, write them here and copy the folder.
        samples: key and members of each; keys are unique in a set of shards and have no dot.
        origin: names what the shard was made from; `shard_origin` gives it back.

    Raises:
        ValueError: a key has a dot, which would end it.
    """
    first = tarfile.TarInfo(_ORIGIN)
    first.pax_headers = {"comment": origin}
    with (
        files.replacing(path) as temporary,
        temporary.open("wb") as stream,
        TarWriter(stream, encoder=False, user="", group="", mtime=0, format="PAX_FORMAT") as writer,
    ):
        writer.tarstream.addfile(first)
        for key, members in samples:
            if "." in key.rpartition("/")[2]:
                raise ValueError(f"expected a key without a dot, found {key!r}: what follows it names the member")
            writer.write({"__key__": key, **members})


def shard_origin(path: Path) -> str | None:
    """The origin of a complete shard, or None when there is no such file or it is not a complete shard."""
    try:
        with Path(path).open("rb") as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                first = tar.next()
            stream.seek(-2 * _BLOCK, 2)
            complete = stream.read() == bytes(2 * _BLOCK)
    except (OSError, tarfile.TarError):
        return None
    if first is None or first.name != _ORIGIN or not complete:
        return None
    return first.pax_headers.get("comment")


def write_index(
    directory: Path, shards: Sequence[str], columns: Sequence[str] = (), picture: str | None = None
) -> pyarrow.Table:
    """Read the headers of the shards, in order, and write the index that makes their directory complete.

    Args:
        directory: local folder of the shards.
        shards: names of the files, relative to it.
        columns: keys of each sample's `json` member whose values (texts) become columns, to select samples by.
        picture: member, a PNG, whose size becomes the columns `height` and `width`, so that nobody need open it.

    Returns:
        the index: shard, key, members (name, offset and size in bytes), ``columns``, and the picture's size.

    Raises:
        ValueError: a key occurs twice, a sample's JSON lacks one of the columns, or a sample has no such picture.
    """
    size = ("height", "width") if picture else ()
    schema = pyarrow.schema(
        [
            *_INDEX,
            *(pyarrow.field(name, pyarrow.string(), nullable=False) for name in columns),
            *(pyarrow.field(name, pyarrow.int32(), nullable=False) for name in size),
        ]
    )
    tables = [
        pyarrow.Table.from_pylist(list(_samples_of(Path(directory) / shard, shard, columns, picture)), schema=schema)
        for shard in shards
    ]
    table = pyarrow.concat_tables(tables) if tables else schema.empty_table()
    if repeated := [key for key, count in Counter(table["key"].to_pylist()).items() if count > 1]:
        raise ValueError(f"{directory}: the key {repeated[0]} occurs in more than one sample")
    with files.replacing(Path(directory) / INDEX_FILE) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd")
    return table


def _samples_of(path: Path, shard: str, columns: Sequence[str], picture: str | None) -> Iterator[dict[str, Any]]:
    """Rows of the index for one shard; only headers, the JSON and the picture's size are read, where asked for."""
    row: dict[str, Any] | None = None

    def complete(row: dict[str, Any]) -> dict[str, Any]:
        if picture and "height" not in row:
            raise ValueError(f"{path}: {row['key']} has no {picture}")
        return row

    with tarfile.open(path, mode="r:") as tar:
        for member in tar:
            folder, slash, name = member.name.rpartition("/")
            stem, dot, extension = name.partition(".")
            if not member.isfile() or member.name.startswith("__") or not dot:
                continue
            key = folder + slash + stem
            if row is None or row["key"] != key:
                if row:
                    yield complete(row)
                row = {"shard": shard, "key": key, "members": []}
            row["members"].append({"name": extension, "offset": member.offset_data, "size": member.size})
            if columns and extension == "json":
                content = json.loads(cast(IO[bytes], tar.extractfile(member)).read())  # of a file: not None
                if missing := [name for name in columns if name not in content]:
                    raise ValueError(f"{path}: {member.name} lacks {', '.join(missing)}")
                row |= {name: str(content[name]) for name in columns}
            if extension == picture:
                head = cast(IO[bytes], tar.extractfile(member)).read(_PNG_SIZE.stop)
                row["width"], row["height"] = struct.unpack(">II", head[_PNG_SIZE])
    if row:
        yield complete(row)


class ShardSet:
    """A directory of shards with its index: samples by number, wherever the files lie.

    Args:
        directory: local path, or URL for fsspec.
        where: values that columns of the index may have; samples with others are left out.
        storage: options for the file system, such as ``{"endpoint_url": ...}`` for S3.

    Raises:
        FileNotFoundError: there is no index, so the set is not complete.
        ValueError: the index has no column of that name.
    """

    def __init__(
        self,
        directory: str | Path,
        where: Mapping[str, Sequence[str]] | None = None,
        storage: Mapping[str, Any] | None = None,
    ) -> None:
        self.directory = str(directory)
        self.files, self._root = open_directory(self.directory, storage)
        index = f"{self._root}/{INDEX_FILE}"
        if not self.files.exists(index):
            raise FileNotFoundError(f"{self.directory}/{INDEX_FILE}: expected a complete directory of shards")
        with self.files.open(index, "rb") as stream:
            table = pyarrow.parquet.read_table(stream)
        self.index = table
        for name, values in (where or {}).items():
            self._require(name)
            chosen = pyarrow.compute.is_in(table[name], value_set=pyarrow.array(values, pyarrow.string()))
            self.index = table = table.filter(chosen)
        self.index = table.combine_chunks()

    def __len__(self) -> int:
        return self.index.num_rows

    def __getitem__(self, number: int) -> Sample:
        """A sample, read where it lies; a read that fails for a while is tried again.

        Raises:
            SampleError: the shard was cut short, or is another one than the index was made of.
            OSError: the storage failed for good.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"expected a number below {len(self)}, found {number}")
        shard, members = self.place(number)
        start, stop = span(members)
        start -= _BLOCK  # with the header of the first member, which says whose bytes these are
        content = self._read(shard, start, stop)
        where = f"{self.directory}/{shard}: {self.key(number)}"
        if len(content) < stop - start:
            raise SampleError(f"{where} ends after {len(content)} of {stop - start} bytes: the shard was cut short")
        expected = f"{self.key(number)}.{min(members, key=lambda member: member['offset'])['name']}".encode()
        found = content[:_NAME_LENGTH].rstrip(b"\0")
        if found != expected[:_NAME_LENGTH] and len(expected) <= _NAME_LENGTH:
            raise SampleError(
                f"{where} is not where the index says, but {found.decode(errors='replace')!r}: the index is older than "
                "the shard; make the shards and their index anew"
            )
        return cut(content, start, members)

    def _read(self, shard: str, start: int, stop: int) -> bytes:
        """Bytes of a shard; storage that is slow or says no is asked again a few times."""
        path = self.path(shard)
        for pause in _PAUSES:
            try:
                return self.files.cat_file(path, start=start, end=stop)
            except (FileNotFoundError, PermissionError):
                raise
            except OSError as error:
                log.warning("%s: %s; trying again in %g s", path, error, pause)
                time.sleep(pause)
        return self.files.cat_file(path, start=start, end=stop)

    def key(self, number: int) -> str:
        """The key of a sample."""
        return self.index["key"][number].as_py()

    def column(self, name: str) -> list[Any]:
        """What the index says of every sample.

        Raises:
            ValueError: it has no such column.
        """
        self._require(name)
        return self.index[name].to_pylist()

    def _require(self, name: str) -> None:
        if name not in self.index.column_names:
            raise ValueError(
                f"{self.directory}: the index has no column {name!r}, only {self.index.column_names}: make it anew"
            )

    def path(self, shard: str) -> str:
        """Where the file system has a shard."""
        return f"{self._root}/{shard}"

    def place(self, number: int) -> tuple[str, list[dict[str, Any]]]:
        """The shard of a sample, and name, offset and size of its members in it."""
        return self.index["shard"][number].as_py(), self.index["members"][number].as_py()


def open_directory(directory: str, storage: Mapping[str, Any] | None = None) -> tuple[AbstractFileSystem, str]:
    """The file system of a path or URL, and the path in it without a slash at the end."""
    system, path = fsspec.core.url_to_fs(directory, **(storage or {}))
    return system, path.rstrip("/")


def span(members: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """First byte of a sample's contents in its shard, and the one after the last."""
    return (
        min(member["offset"] for member in members),
        max(member["offset"] + member["size"] for member in members),
    )


def cut(content: bytes | memoryview, start: int, members: Sequence[Mapping[str, Any]]) -> Sample:
    """The members of a sample out of a piece of its shard that begins at byte ``start``."""
    sample = {}
    for member in members:
        begin = member["offset"] - start
        sample[member["name"]] = bytes(content[begin : begin + member["size"]])
    return sample
