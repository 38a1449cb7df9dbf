"""A clock that tests hold."""


class FakeClock:
    """Seconds that pass only when the test says so, or a fixed step at every look."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 100.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds
