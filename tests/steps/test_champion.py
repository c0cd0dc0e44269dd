"""Promotion and rollback on a real registry: one champion however many promote at once, and the way back."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest

from components.models.package import PackageError
from steps import champion, registry
from steps.champion import ChampionChanged, NoWayBack, Restored, promote_version, recover, rollback
from steps.registry_lock import ENDED_PREFIX, LOCK_MODEL, server_lock
from tests.steps.conftest import AT_ONCE, copy_registry

pytestmark = pytest.mark.slow


@pytest.fixture
def versions(packages: Path, tmp_path: Path) -> Iterator[list[str]]:
    """The versions of a new registry."""
    mlflow.set_tracking_uri(copy_registry(packages, tmp_path))
    yield [str(number) for number in range(1, AT_ONCE + 1)]
    mlflow.set_tracking_uri("")


def weights(tmp_path: Path, version: str) -> Path:
    """A file of a version's package in the registry."""
    return next((tmp_path / "artifacts").rglob(f"{version}/artifacts/package/critic/weights.safetensors"))


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
    context.set_forkserver_preload([__name__])
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
    assert rollback(reason="too green")[:2] == (second, third)
    assert registry.champion_version() == second
    assert "too green" in champion.taken_down(third)
    with pytest.raises(ValueError, match="was rolled back"):
        promote_version(third, over=second)
    promote_version(fourth, over=second)
    assert rollback()[:2] == (second, fourth)
    assert rollback()[:2] == (first, second)
    with pytest.raises(NoWayBack, match="no champion before"):
        rollback()
    assert registry.champion_version() == first


def test_a_version_can_be_put_back_by_name(versions: list[str]) -> None:
    first, second = versions[:2]
    promote_version(first, None)
    promote_version(second, first)
    rollback()
    assert rollback(to=second)[:2] == (second, first)
    assert champion.taken_down(second) is None
    assert rollback(to=second)[:2] == (second, second)
    with pytest.raises(NoWayBack, match="no version '999'"):
        rollback(to="999")


def test_there_is_no_way_back_from_nothing(versions: list[str]) -> None:
    with pytest.raises(NoWayBack, match="no champion yet"):
        rollback()


def test_a_damaged_version_is_not_restored(versions: list[str], tmp_path: Path) -> None:
    promote_version(versions[0], None)
    promote_version(versions[1], versions[0])
    weights(tmp_path, versions[0]).write_text("altered")
    with pytest.raises(PackageError, match=r"version 1 .* altered.*make pipeline"):
        rollback()
    assert registry.champion_version() == versions[1]


def test_a_version_without_its_files_is_not_promoted(versions: list[str], tmp_path: Path) -> None:
    promote_version(versions[0], None)
    weights(tmp_path, versions[1]).unlink()
    with pytest.raises(PackageError, match=r"version 2 .*critic/weights.safetensors is missing.*make pipeline"):
        promote_version(versions[1], versions[0])
    shutil.rmtree(weights(tmp_path, versions[2]).parents[4])
    with pytest.raises(PackageError, match=r"version 3 .*make pipeline"):
        promote_version(versions[2], versions[0])
    assert registry.champion_version() == versions[0]


STAGES = ("set_registered_model_alias", "set_model_version_tag", "set_registered_model_tag", "tell")


def killed_at(uri: str, stage: str, count: int) -> None:
    """Roll back, and be killed just before (`count` even) or after (odd) the call `stage` number `count` // 2."""
    mlflow.set_tracking_uri(uri)
    seen = 0

    def tell(restored: Restored) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if stage != "tell":
        real = getattr(mlflow.MlflowClient, stage)

        def dying(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)
            answer, seen = real(*arguments, **named), seen + 2
            if seen - 1 == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        setattr(mlflow.MlflowClient, stage, dying)
    rollback(tell=tell)


def test_a_rollback_that_is_killed_anywhere_and_given_again_goes_back_one(versions: list[str], tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    first, second, third = versions[:3]
    for version, over in ((first, None), (second, first), (third, second)):
        promote_version(version, over)
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "before.db")
    moments = [(name, count) for name in STAGES[:2] for count in range(2)] + [(STAGES[2], c) for c in range(6)]
    for number, (stage, count) in enumerate([*moments, (STAGES[3], 0)]):
        mlflow.set_tracking_uri("")
        shutil.copy(tmp_path / "before.db", tmp_path / f"{stage}-{count}.db")
        uri = f"sqlite:///{tmp_path / f'{stage}-{count}.db'}"
        process = context.Process(target=killed_at, args=(uri, stage, count))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, (stage, count)
        mlflow.set_tracking_uri(uri)
        if number % 2:
            recover()  # others come first, and finish it
        restored = rollback()
        assert (restored.version, restored.instead_of, registry.champion_version()) == (second, third, second)
        assert champion.taken_down(third) and champion.taken_down(second) is None
        assert rollback()[:2] == (first, second)  # and now one more


def test_an_interrupted_rollback_does_not_take_down_what_was_promoted_since(versions: list[str]) -> None:
    def interrupted(restored: Restored) -> None:
        raise KeyboardInterrupt

    for version, over in (("1", None), ("2", "1"), ("3", "2")):
        promote_version(version, over)
    with pytest.raises(KeyboardInterrupt):
        rollback(tell=interrupted)
    promote_version("4", over="2")
    restored = rollback()
    assert (restored.version, restored.instead_of, restored.champion) == ("2", "3", "4")
    assert restored.interrupted
    assert registry.champion_version() == "4"
    assert rollback()[:2] == ("2", "4")


def test_an_alias_that_was_moved_by_hand_is_seen(versions: list[str]) -> None:
    for version, over in (("1", None), ("2", "1"), ("3", "2")):
        promote_version(version, over)
    rollback()
    registry.set_alias(registry.CHAMPION, "3")  # in MLflow's pages, though it was taken down
    assert recover() == "3"
    assert champion.taken_down("3") is None
    assert rollback()[:2] == ("2", "3")
    mlflow.MlflowClient().delete_model_version(registry.MODEL, "2")  # and the alias with it
    assert recover() is None
    with pytest.raises(NoWayBack, match="no champion in the registry any more"):
        rollback()
    assert rollback(to="1").version == registry.champion_version() == "1"
