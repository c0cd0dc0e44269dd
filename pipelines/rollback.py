"""`make rollback` and `make champion`: who is champion, in the registry and for `make enhance`."""

from collections.abc import Callable

import mlflow

from components.champion.copies import ChampionCopies
from pipelines.environment import State
from pipelines.stack_file import StackFile
from steps.champion import Restored, recover, rollback
from steps.publish import copy_version, publish_champion


def connect(stack: StackFile, state: State) -> None:
    """Set MLflow to the registry of a stack: the one in the state folder, or a tracking server, logged in to it."""
    tracker = stack.components.get("experiment_tracker")
    if stack.remote or (tracker and "tracking_uri" in tracker.configuration):
        from zenml.client import Client  # takes seconds, which the registry in the state folder need not wait for

        from pipelines.stack import register

        register(stack)
        Client().active_stack.experiment_tracker.configure_mlflow()
    else:
        mlflow.set_tracking_uri(state.tracking_uri)


def restore(state: State, to: str | None, reason: str, say: Callable[[str], None], stack: str = "local") -> bool:
    """Roll back (see `steps.champion.rollback`), publish the restored champion, and say in words what was done.

    Returns:
        whether the version that was restored is champion: False where an earlier command of the same kind was
        interrupted, its rollback was finished by others, and another version has been promoted since.

    Raises:
        steps.champion.NoWayBack: there is nothing to restore.
        components.models.package.PackageError: the files of the version to restore have been altered.
    """
    copies = ChampionCopies(state.folder.resolve())

    def tell(restored: Restored) -> None:
        publish_champion(state.folder, stack)
        say(in_words(restored, to))

    with copies.reading():
        restored = rollback(to, reason, ready=lambda version: copy_version(copies, version, stack), tell=tell)
    copies.sweep()
    return restored.version == restored.champion


def in_words(restored: Restored, to: str | None) -> str:
    """What a rollback did."""
    if restored.version == restored.instead_of:
        return f"version {restored.version} is the champion already"
    left = f"version {restored.instead_of} will not be promoted any more" if restored.instead_of else ""
    if not restored.interrupted:
        return f"version {restored.version} is champion again" + (f"; {left}" if left else "")
    again = f"`make rollback{f' TO={to}' if to else ''}`"
    begun = f"(begun at {restored.interrupted} by a command that was interrupted"
    if restored.version == restored.champion:
        return f"version {restored.version} is champion again; {left} {begun}; {again} once more goes on from there)"
    return (
        f"nothing done now: version {restored.version} was made champion again {begun}), and version "
        f"{restored.champion} has become champion since; {again} once more takes that one down"
    )


def follow(state: State, stack: str) -> str:
    """Finish what a killed process began, publish the champion, and say who it is."""
    published = publish_champion(state.folder, stack)
    champion = recover()
    if published is None or champion is None:
        return "There is no champion in the registry."
    return f"version {champion} is champion; its copy: {published}"
