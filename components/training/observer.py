"""What watches the loop of a stage: a watchdog against standing still, and a watch over divergence."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType

from pydantic import Field
from torch import Tensor

from components.strict import Strict
from components.training.checkpoints import CheckpointStore
from components.training.divergence import Diagnosis, SpikeWatch
from components.training.watchdog import Watchdog


class ObserverSettings(Strict):
    """When a stage is ended because it stalls or diverges; nothing here changes what is learnt."""

    watchdog_seconds: float = Field(
        default=1800.0, ge=0, description="Seconds without progress after which the process is ended; 0 never ends it."
    )
    spike_deviations: float = Field(
        default=0.0,
        ge=0,
        description="Robust standard deviations above the running median from which a loss is out of range; 0: off.",
    )
    spike_patience: int = Field(default=20, gt=0, description="Consecutive steps out of range that end the stage.")
    spike_window: int = Field(default=100, gt=1, description="Number of losses in range that the median is taken of.")


class Observer:
    """Watches one loop, from entering its context to leaving it.

    Args:
        name: of the loop.
        parameters: that are trained, by name.
        store: of its checkpoints, beside which a process that stalled leaves its stacks.
    """

    def __init__(self, name: str, settings: ObserverSettings, parameters: Mapping[str, Tensor], store: CheckpointStore):
        self.settings = settings
        self.diagnosis = Diagnosis(name, parameters, store)
        self.watchdog = Watchdog(name, settings.watchdog_seconds, store.folder)
        self._spikes: dict[str, SpikeWatch] = {}

    def __enter__(self) -> "Observer":
        self.watchdog.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.watchdog.__exit__(kind, error, traceback)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """A part of a step: what the watchdog names if it never ends, and the diagnosis if it diverges."""
        self.watchdog.progress(what)
        with self.diagnosis.of(what):
            yield

    def finished(self, step: int, values: Mapping[str, float], losses: tuple[str, ...]) -> None:
        """Take what a step reported; `losses` are the names of the values that are watched for spikes.

        Raises:
            DivergenceError: a loss stayed out of its range.
        """
        self.diagnosis.record(step, values)
        settings = self.settings
        with self.diagnosis.of(f"step {step}"):
            for name in losses:
                if name in values:
                    watch = self._spikes.setdefault(
                        name, SpikeWatch(settings.spike_deviations, settings.spike_patience, settings.spike_window)
                    )
                    watch.see(name, values[name])

    @property
    def suspicious(self) -> bool:
        """A loss is out of range at the moment: what it leads to had better not be kept as the newest checkpoint."""
        return any(watch.streak for watch in self._spikes.values())
