"""What a server counts, for Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from components.serving.processes import DecodeProcesses
from components.serving.service import PhotoService

_BUCKETS = (0.005, 0.05, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The figures of one application, apart from those of others in the process.

    Attributes:
        uploads: bytes of bodies that are held.
    """

    def __init__(self, service: PhotoService):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "smartphotocrafter_requests",
            "Requests answered, by path and status.",
            ["path", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "smartphotocrafter_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["path"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.uploads = Gauge(
            "smartphotocrafter_body_bytes", "Bytes of requests' bodies that are held.", registry=self.registry
        )
        inside = Gauge("smartphotocrafter_places_taken", "Requests at work or waiting.", registry=self.registry)
        inside.set_function(lambda: service.admission.inside)
        places = Gauge("smartphotocrafter_places", "Requests that may be at work or wait.", registry=self.registry)
        places.set(service.admission.places)
        self.registry.register(_Ends(service.processes))

    def text(self) -> bytes:
        """All figures as Prometheus reads them."""
        return generate_latest(self.registry)


class _Ends(Collector):
    def __init__(self, processes: DecodeProcesses):
        self._processes = processes

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "smartphotocrafter_decode_processes_ended",
            "Processes of a photo that its file brought to an end, by signal, or memory.",
            labels=["reason"],
        )
        for reason, count in dict(self._processes.ends).items():
            family.add_metric([reason], count)
        yield family
