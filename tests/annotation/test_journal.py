"""The journal: what is appended is found again, whatever end the last process took."""

import os
import resource
import signal
from pathlib import Path

import pytest

from components.annotation.annotators import AnnotatorAnswer
from components.annotation.journal import AnnotationJournal, JournalEntry
from components.chat.journal import JournalError
from components.verdict.grammar import Verdict, suggest

VERDICT = Verdict(reasoning=("noise",) * 5, suggestions=(suggest("exposure", 0.5),), score=42.0)


def key(index: int) -> str:
    return f"{index:064x}"


def answer(index: int) -> AnnotatorAnswer:
    return AnnotatorAnswer(f"photo-{index}", VERDICT, None, 100 + index, 10, requests=3, repaired=True)


def write(path: Path, *indices: int) -> None:
    with AnnotationJournal(path) as journal:
        for index in indices:
            journal.append(JournalEntry.of(key(index), "m", answer(index)))


def test_answers_of_other_journals_are_known_while_others_write_into_them(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.jsonl", tmp_path / "other.jsonl"
    write(mine, 0)
    write(other, 1)
    with AnnotationJournal(other) as writer:
        complete = other.read_bytes()
        with other.open("ab") as file:
            file.write(b'{"key": "half of a li')
        with AnnotationJournal(mine, [mine, other, other]) as journal:
            assert [journal.answer(key(n), f"photo-{n}") is not None for n in range(3)] == [True, True, False]
            assert journal.answer(key(1), "photo-1") == writer.answer(key(1), "photo-1")
            with pytest.raises(ValueError, match="has an answer already"):
                journal.append(JournalEntry.of(key(1), "m", answer(1)))
            journal.append(JournalEntry.of(key(2), "m", answer(2)))
        assert other.read_bytes().startswith(complete) and other.read_bytes() != complete, "it is not ours to repair"
    with AnnotationJournal(mine) as journal:
        assert len(journal) == 2 and journal.answer(key(2), "photo-2") is not None
    other.write_text("no journal\n")
    with pytest.raises(JournalError, match=r"other\.jsonl:1"), AnnotationJournal(mine, [other]):
        pass


def test_answers_come_back_as_they_were_and_as_restored(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.jsonl"
    write(path, 0, 1)
    with AnnotationJournal(path) as journal:
        journal.append(JournalEntry.of(key(2), "m", AnnotatorAnswer("photo-2", None, "refused by the server: 400")))
        assert len(journal) == 3 and journal.answer(key(3), "x") is None
        found = journal.answer(key(1), "photo-1")
        assert found == AnnotatorAnswer("photo-1", VERDICT, None, 101, 10, requests=3, repaired=True, restored=True)
        assert journal.answer(key(2), "photo-2").reason == "refused by the server: 400"
        with pytest.raises(ValueError, match="already"):
            journal.append(JournalEntry.of(key(1), "m", answer(1)))


@pytest.mark.parametrize("kept", [0, 1, 20, -1])
def test_a_torn_last_line_is_cut_off_and_only_that(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 0, 1, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:kept])
    write(path, 3)
    with AnnotationJournal(path) as journal:
        found = [journal.answer(key(index), f"photo-{index}") is not None for index in range(4)]
    assert found == [True, True, False, True]
    assert path.read_bytes().startswith(b"".join(lines[:2])) and path.read_bytes().endswith(b"\n")


def test_a_second_process_is_kept_out_until_the_first_has_died(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with AnnotationJournal(path) as journal:
                journal.append(JournalEntry.of(key(0), "m", answer(0)))
                os.write(told, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.read(ready, 1)
    try:
        with pytest.raises(JournalError, match="another process"), AnnotationJournal(path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(told)
    with AnnotationJournal(path) as journal:
        assert len(journal) == 1


def test_a_full_disk_is_an_error_that_leaves_the_journal_whole(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 0)
    size = path.stat().st_size
    child = os.fork()
    if child == 0:  # a limit on the size of files stands for the full disk, and cannot be lifted again
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50))
            write(path, 1)
        except OSError:
            os._exit(3)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert path.stat().st_size == size
    write(path, 1)


def test_a_foreign_file_is_not_taken_for_a_journal_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "diary"
    path.write_text("dear diary\n")
    with pytest.raises(JournalError, match="one answer per line as a JSON object"), AnnotationJournal(path):
        pass
    assert path.read_text() == "dear diary\n"
    write(tmp_path / "journal", 0)
    content = (tmp_path / "journal").read_text().replace("<think>", "<thought>")
    (tmp_path / "journal").write_text(content)
    with AnnotationJournal(tmp_path / "journal") as journal, pytest.raises(JournalError, match="photo-0"):
        journal.answer(key(0), "photo-0")
