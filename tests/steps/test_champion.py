"""Promotion and rollback on a real registry: one champion however many promote at once, and the way back."""

import multiprocessing
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from steps import champion, registry
from steps.champion import ChampionChanged, NoWayBack, promote_version, rollback
from steps.registry_lock import ENDED_PREFIX, LOCK_MODEL, server_lock

AT_ONCE = 20


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new SQLite registry with `AT_ONCE` versions."""
    folder = tmp_path_factory.mktemp("registry")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    client.create_registered_model(registry.MODEL)
    for _ in range(AT_ONCE):
        client.create_model_version(registry.MODEL, source=str(folder))
    return folder / "mlflow.db"


@pytest.fixture
def versions(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The versions of a copy of that registry, whose packages count as whole."""
    mlflow.set_tracking_uri(f"sqlite:///{shutil.copy(template, tmp_path / 'mlflow.db')}")
    monkeypatch.setattr(champion, "version_package", lambda version: None)
    yield [str(number) for number in range(1, AT_ONCE + 1)]
    mlflow.set_tracking_uri("")


def lineage() -> list[str]:
    """The champion and whose place each took, back to the first."""
    version, found = registry.champion_version(), []
    while version:
        found.append(version)
        tags = mlflow.MlflowClient().get_model_version(registry.MODEL, version).tags
        version = tags.get(champion.PREVIOUS_TAG)
    return found


def insist(uri: str, version: str) -> None:
    """Promote as the step does: whenever another came first, compare with that one, and win."""
    mlflow.set_tracking_uri(uri)
    while True:
        try:
            promote_version(version, over=registry.champion_version())
            return
        except ChampionChanged:
            continue


def test_twenty_processes_promote_at_once(versions: list[str]) -> None:
    """Each of them is champion once, after exactly one other: none is lost, none overtakes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["steps.champion"])
    uri = mlflow.get_tracking_uri()
    processes = [context.Process(target=insist, args=(uri, version)) for version in versions]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * AT_ONCE
    aliases = mlflow.MlflowClient().get_registered_model(registry.MODEL).aliases
    assert list(aliases) == [registry.CHAMPION]
    assert sorted(lineage(), key=int) == versions


def test_the_lock_of_a_tracking_server_lets_one_in_at_a_time(versions: list[str]) -> None:
    inside, most, failures = 0, 0, []

    def enter() -> None:
        nonlocal inside, most
        try:
            for _ in range(2):
                with server_lock():
                    inside += 1
                    most = max(most, inside)
                    time.sleep(0.01)
                    inside -= 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, failures) == (1, [])
    assert not mlflow.MlflowClient().search_registered_models(f"name = '{LOCK_MODEL}'")


def test_the_lock_of_a_dead_holder_is_broken_by_one_and_that_of_a_living_one_respected(versions: list[str]) -> None:
    client = mlflow.MlflowClient()
    client.create_registered_model(LOCK_MODEL, tags={"holder": "killed"})
    with pytest.raises(TimeoutError, match="other promotions are running, or were killed"), server_lock(wait=0.2):
        pass
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        with server_lock(wait=60, stale=5):
            inside += 1
            most = max(most, inside)
            time.sleep(0.1)
            inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]  # all see the same dead holder
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)
    assert client.search_registered_models(f"name = '{ENDED_PREFIX}killed'"), "kept: others may yet try to end it"
    assert not client.search_registered_models(f"name = '{LOCK_MODEL}'")


def test_who_lost_the_lock_leaves_that_of_the_next_alone(versions: list[str]) -> None:
    client = mlflow.MlflowClient()
    with server_lock():
        slow = client.get_registered_model(LOCK_MODEL).tags["holder"]
        client.rename_registered_model(LOCK_MODEL, ENDED_PREFIX + slow)
        client.create_registered_model(LOCK_MODEL, tags={"holder": "next"})
    assert client.get_registered_model(LOCK_MODEL).tags["holder"] == "next"


def test_who_was_compared_with_another_champion_is_not_promoted(versions: list[str]) -> None:
    first, second, third = versions[:3]
    promote_version(first, over=None)
    promote_version(second, over=first)
    promote_version(second, over=first)  # again: nothing happens
    with pytest.raises(ChampionChanged, match=f"version {third} was compared with version {first}"):
        promote_version(third, over=first)
    assert lineage() == [second, first]


def test_rollback_goes_back_one_champion_at_a_time(versions: list[str]) -> None:
    first, second, third, fourth = versions[:4]
    for version, over in ((first, None), (second, first), (third, second)):
        promote_version(version, over)
    assert rollback(reason="too green") == (second, third)
    assert registry.champion_version() == second
    assert "too green" in champion.taken_down(third)
    with pytest.raises(ValueError, match="was rolled back"):
        promote_version(third, over=second)
    promote_version(fourth, over=second)
    assert rollback() == (second, fourth)
    assert rollback() == (first, second)
    with pytest.raises(NoWayBack, match="no champion before"):
        rollback()
    assert registry.champion_version() == first


def test_a_version_can_be_put_back_by_name(versions: list[str]) -> None:
    first, second = versions[:2]
    promote_version(first, None)
    promote_version(second, first)
    rollback()
    assert rollback(to=second) == (second, first)
    assert champion.taken_down(second) is None
    assert rollback(to=second) == (second, second)
    with pytest.raises(NoWayBack, match="no version '999'"):
        rollback(to="999")


def test_there_is_no_way_back_from_nothing(versions: list[str]) -> None:
    with pytest.raises(NoWayBack, match="no champion yet"):
        rollback()


def test_a_damaged_version_is_not_restored(versions: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(version: str) -> None:
        raise ValueError("altered")

    promote_version(versions[0], None)
    promote_version(versions[1], versions[0])
    monkeypatch.setattr(champion, "version_package", damaged)
    with pytest.raises(ValueError, match="altered"):
        rollback()
    assert registry.champion_version() == versions[1]
