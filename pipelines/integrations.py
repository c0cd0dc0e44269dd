"""Which of ZenML's integrations a run activates: none for types of data that no step takes or gives.

ZenML activates every integration whose library is installed, which imports it: torch and scikit-learn take seconds,
longer than a run in which all steps come from the cache. Steps here hand on folders, files and records, for which none
of these is asked. What an artifact was stored with is imported by its name in any case.
"""

from zenml.integrations.integration import Integration
from zenml.integrations.registry import integration_registry

UNUSED = ("numpy", "pandas", "pillow", "pytorch", "scipy", "sklearn")


class LeftOut(Integration):
    """In the place of an integration that is not to be activated."""

    NAME = "left out"

    @classmethod
    def check_installation(cls) -> bool:
        """As if its library were not installed."""
        return False


def leave_out_unused() -> None:
    """Have ZenML activate none of `UNUSED` in this process."""
    for name in UNUSED:
        if name in integration_registry.list_integration_names:
            integration_registry.register_integration(name, LeftOut)
