"""The bounds within which requests are taken."""

from dataclasses import dataclass

from headstart.errors import OptionError

MEBI = 2**20


@dataclass(frozen=True)
class Limits:
    """How much a server takes on; beyond these a request is refused in one line.

    Attributes:
        body_bytes: of one request; more is 413.
        images: in one request; more is 413.
        pixels: of one image, by its header, before it is decoded; more is 422.
        batch: images that run through the network at once.
        wait_seconds: how long an image waits for others to share its batch; nothing waits while it is alone.
        queue: images accepted and not yet answered; beyond them 503.
        memory_bytes: bodies of all requests together; beyond them 503.
        decode_seconds: for decoding one image; more is 422.
        body_seconds: for sending a request; more is 408.
        answer_seconds: for answering a request once it has arrived; more is 504.
    """

    body_bytes: int = 32 * MEBI
    images: int = 64
    pixels: int = 50_000_000
    batch: int = 16
    wait_seconds: float = 0.003
    queue: int = 256
    memory_bytes: int = 256 * MEBI
    decode_seconds: float = 10.0
    body_seconds: float = 30.0
    answer_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.images > self.queue:
            raise OptionError(
                f"a request may hold {self.images} images but the queue only {self.queue}; raise --queue"
            )
        if self.body_bytes > self.memory_bytes:
            raise OptionError(
                f"a request may have {self.body_bytes // MEBI} MiB but all together only "
                f"{self.memory_bytes // MEBI}; lower --max-mb"
            )
