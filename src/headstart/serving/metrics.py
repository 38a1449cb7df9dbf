"""What `GET /metrics` tells, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server, in a registry of their own: a process may hold several servers."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter("headstart_requests", "Answers of POST /predict.", ["status"], registry=own)
        self.images = Counter("headstart_images", "Images that were classified.", registry=own)
        self.seconds = Histogram(
            "headstart_request_seconds",
            "From a request's head to its answer, where it was classified.",
            buckets=_SECONDS,
            registry=own,
        )
        self.batches = Histogram(
            "headstart_batch_images", "Images that ran together.", buckets=_IMAGES, registry=own
        )
        self.waiting = Gauge(
            "headstart_waiting_images", "Images accepted and not yet answered.", registry=own
        )
        self.reloads = Counter("headstart_reloads", "Exchanges of the classifier.", ["result"], registry=own)
        self.troubles = Gauge("headstart_troubles", "Lines of trouble in GET /health.", registry=own)
        self.decoders = Counter(
            "headstart_decoders_ended", "Decoding processes that took too long or failed.", registry=own
        )
        ProcessCollector(registry=own)

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)
