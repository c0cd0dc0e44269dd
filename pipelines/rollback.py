"""`make rollback`: the champion before the present one is champion again, in the registry and for `make enhance`."""

from pipelines.environment import State


def restore(state: State, to: str | None, reason: str) -> str:
    """Roll back (see `steps.champion.rollback`), publish the restored champion, and say in words what was done.

    Raises:
        steps.champion.NoWayBack: there is nothing to restore.
        components.registry.package.PackageError: the files of the version to restore have been altered.
    """
    import mlflow
    from zenml.integrations.mlflow.mlflow_utils import get_tracking_uri

    from steps.champion import rollback
    from steps.registry import publish_champion

    mlflow.set_tracking_uri(get_tracking_uri())
    restored = rollback(to, reason)
    publish_champion(state.folder)
    if restored.version == restored.instead_of:
        return f"version {restored.version} is the champion already"
    return f"version {restored.version} is champion again; version {restored.instead_of} will not be promoted any more"
