"""`headstart serve` under load from a second process, against what decoding plus the network allow.

First every image's answer is compared with `classifier.predict`. Then, in turns so that both see the same
machine, images are decoded and run in this process (the ceiling: all cores, no HTTP, no client), and the
server is loaded over kept-alive connections by a process of its own, whose work comes out of the same cores.
Then ten times as many connections ask at once and ask again the moment that they are refused: refusals must
be 503 with Retry-After, and every request that was not refused must be answered rightly. `--soak` keeps that
load up and prints the server's memory.

    python benchmarks/serve.py ../shared/data/flowers [--images-per-request 1] [--soak 600]
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

TARGET = 0.7
CONNECTIONS = 32
OVERLOAD = 10
FLAT_BYTES = 32 * 2**20
"""How far memory may rise between the first tenth of a soak and its end."""

ALLOWED = {"f32": 1e-3, "bf16": 6e-2}
"""Difference of a probability; `classifier.check_parity` explains the second."""


def main() -> None:
    """Fit, compare answers, measure in turns, overload, soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--images", type=int, default=512, help="photographs to ask with")
    parser.add_argument("--images-per-request", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--soak", type=float, default=20.0, help="seconds of tenfold load")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = fitted(options.data, Path(scratch))
        files = sorted(path for path in options.data.rglob("*.jpg"))[:: max(1, 1000 // options.images)]
        files = files[: options.images]
        with server(run) as (address, process):
            expected = compare_answers(run, files, address)
            measure(run, files, address, options)
            overload(files, address, process, expected, options)


def fitted(data: Path, scratch: Path) -> Path:
    """A classifier of these photographs, with `builtin` at its default size."""
    import headstart

    headstart.fit(data, out=scratch / "run")
    return scratch / "run"


@contextmanager
def server(run: Path) -> Iterator[tuple[tuple[str, int], subprocess.Popen[str]]]:
    """`headstart serve` in a process of its own."""
    start = "from headstart.cli import main; main()"
    command = [sys.executable, "-c", start, "serve", str(run), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()
            if not line:
                raise SystemExit("the server did not start")
            text += line
        host, port = json.loads(text)["address"].removeprefix("http://").rstrip("/").split(":")
        yield (host, int(port)), process
    finally:
        process.terminate()
        if process.wait(60) != 0:
            raise SystemExit(f"the server ended with {process.returncode}")


def compare_answers(run: Path, files: Sequence[Path], address: tuple[str, int]) -> list[str]:
    """Assert that the server says what `classifier.predict` says; the labels."""
    import headstart

    classifier = headstart.load(run)
    wanted = classifier.predict(files, top=len(classifier.classes))
    allowed, worst, others = ALLOWED[classifier.precision], 0.0, 0
    loop_answers = asyncio.run(ask_all(address, [request([file], top=1000) for file in files]))
    for prediction, (status, body) in zip(wanted, loop_answers, strict=True):
        if status != 200:
            raise SystemExit(f"{prediction.path}: {status} {body!r}")
        found = dict(json.loads(body)["predictions"][0]["top"])
        worst = max(worst, *(abs(found[label] - share) for label, share in prediction.top))
        best = max(found, key=found.__getitem__)
        others += best != prediction.label
        if best != prediction.label and prediction.top[0][1] - prediction.top[1][1] > 2 * allowed:
            raise SystemExit(f"{prediction.path}: {best} instead of {prediction.label}")
    if worst > allowed:
        raise SystemExit(f"probabilities differ by {worst:.3g}; at most {allowed:g} expected")
    print(
        f"answers equal classifier.predict on {len(files)} images: largest difference {worst:.2g}, "
        f"{others} other labels ({classifier.precision})"
    )
    return [json.loads(body)["predictions"][0]["label"] for _, body in loop_answers]


def measure(run: Path, files: Sequence[Path], address: tuple[str, int], options: argparse.Namespace) -> None:
    """Ceiling and server in turns; prints the ratio of the medians."""
    ceiling = Ceiling(run, files)
    ceiling.images_per_second(1.0)
    load(address, files, options.images_per_request, connections=CONNECTIONS, seconds=1.0)
    rows = []
    for _ in range(options.turns):
        most = ceiling.images_per_second(options.seconds)
        outcome = load(
            address, files, options.images_per_request, connections=CONNECTIONS, seconds=options.seconds
        )
        rows.append((most, outcome["images"] / outcome["elapsed"]))
        print(f"  ceiling {rows[-1][0]:7.0f} images/s   served {rows[-1][1]:7.0f}   {outcome['statuses']}")
    ratios = sorted(served / most for most, served in rows)
    print(
        f"{options.images_per_request} images a request, {CONNECTIONS} connections: "
        f"served / ceiling {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}; "
        f"at least {TARGET} wanted)"
    )


class Ceiling:
    """Decoding in threads, then the network over whole batches, overlapping, with nothing else to do."""

    def __init__(self, run: Path, files: Sequence[Path]) -> None:
        import headstart

        self.classifier = headstart.load(run)
        self.data = [file.read_bytes() for file in files]
        self.network = self.classifier.compiled(32)

    def images_per_second(self, seconds: float) -> float:
        """Images a second over about so many seconds."""
        from headstart.images import CENTRE, open_image, render, shortest_side_needed

        preprocess = self.classifier.preprocess
        side = shortest_side_needed(preprocess, (CENTRE,))

        def pixels(data: bytes) -> np.ndarray:
            return render(open_image(data, shortest_side=side)[0], preprocess, CENTRE)

        def batches(pool: ThreadPoolExecutor) -> Iterator[tuple[int, np.ndarray]]:
            waiting = [pool.submit(pixels, data) for data in self.data[:64]]
            for number in range(0, len(self.data), 32):
                waiting += [pool.submit(pixels, data) for data in self.data[number + 64 : number + 96]]
                ready, waiting = waiting[:32], waiting[32:]
                yield number, np.stack([future.result() for future in ready])

        started, images = time.perf_counter(), 0
        with ThreadPoolExecutor(max(2, os.cpu_count() or 1)) as pool:
            while time.perf_counter() - started < seconds:
                images += sum(len(found["probabilities"]) for _, found in self.network.stream(batches(pool)))
        return images / (time.perf_counter() - started)


def overload(
    files: Sequence[Path],
    address: tuple[str, int],
    process: subprocess.Popen[str],
    expected: Sequence[str],
    options: argparse.Namespace,
) -> None:
    """Ten times the connections for the soak's time; assert what must hold."""
    seconds = max(options.soak, 5.0)
    sampler = Memory(process.pid)
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(sampler.watch, seconds)
        outcome = load(
            address,
            files,
            options.images_per_request,
            connections=OVERLOAD * CONNECTIONS,
            seconds=seconds,
            labels=expected,
        )
        watching.result()
    statuses = {int(status): count for status, count in outcome["statuses"].items()}
    print(
        f"{OVERLOAD * CONNECTIONS} connections for {seconds:.0f} s: asked {sum(statuses.values()):,} times, "
        f"answers {statuses}, {outcome['images'] / outcome['elapsed']:.0f} images/s, "
        f"{outcome['lost']} lost, {outcome['wrong']} wrong, "
        f"{outcome['without_retry']} refusals without Retry-After"
    )
    print(f"memory of the server: {sampler.text()}")
    if outcome["lost"] or outcome["wrong"] or outcome["without_retry"] or set(statuses) - {200, 503}:
        raise SystemExit("an accepted request was lost, or a refusal was not a 503 with Retry-After")
    if not statuses.get(503):
        raise SystemExit("nothing was shed: the load was no overload")
    if sampler.growth() > FLAT_BYTES:
        raise SystemExit("memory is not flat")


class Memory:
    """Resident memory of a process, once a second."""

    def __init__(self, pid: int) -> None:
        self.pid, self.bytes = pid, [self._now(pid)]

    @staticmethod
    def _now(pid: int) -> int:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    def watch(self, seconds: float) -> None:
        """Sample for so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(1)
            self.bytes.append(self._now(self.pid))

    def growth(self) -> int:
        """Bytes between the first tenth's peak, when all buffers are filled, and the last tenth's peak."""
        tenth = max(2, len(self.bytes) // 10)
        return max(self.bytes[-tenth:]) - max(self.bytes[: 2 * tenth])

    def text(self) -> str:
        """Start, end and peak for people."""
        start, end, peak = (value / 2**20 for value in (self.bytes[0], self.bytes[-1], max(self.bytes)))
        return f"{start:.0f} MiB at the start, {end:.0f} at the end, {peak:.0f} at most"


# The client ----------------------------------------------------------------------------------------------


def request(files: Sequence[Path], *, top: int = 5) -> bytes:
    """A whole HTTP request, ready to be sent: the client must cost little, for it shares the cores."""
    mark = "headstart-benchmark-9c1d"
    parts = [
        f'--{mark}\r\ncontent-disposition: form-data; name="images"; filename="{file.name}"\r\n\r\n'.encode()
        + file.read_bytes()
        + b"\r\n"
        for file in files
    ]
    body = b"".join([*parts, f"--{mark}--\r\n".encode()])
    head = (
        f"POST /predict?top={top} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
        f"content-type: multipart/form-data; boundary={mark}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One kept-alive connection: sends a request, reads the answer."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.answer: asyncio.Future[tuple[int, bytes, bool]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def ask(self, data: bytes) -> "asyncio.Future[tuple[int, bytes, bool]]":
        """Status, body, and whether there was a Retry-After."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(data)  # type: ignore[attr-defined]
        return self.answer

    def data_received(self, data: bytes) -> None:
        """Complete the answer once all of it is there."""
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or self.answer is None:
            return
        head = bytes(self.buffer[:end]).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        if len(self.buffer) >= end + 4 + length:
            body = bytes(self.buffer[end + 4 : end + 4 + length])
            del self.buffer[: end + 4 + length]
            self.answer.set_result((int(head[9:12]), body, b"retry-after:" in head))

    def connection_lost(self, error: Exception | None) -> None:
        """An answer that will not come is an error."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError("the connection ended before the answer"))


async def connect(address: tuple[str, int]) -> Connection:
    """A new connection."""
    _, connection = await asyncio.get_running_loop().create_connection(Connection, *address)
    return connection


async def ask_all(address: tuple[str, int], requests: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Each request once, over 8 connections; answers in order."""
    answers: list[tuple[int, bytes]] = [(0, b"")] * len(requests)
    left = iter(range(len(requests)))

    async def work() -> None:
        connection = await connect(address)
        for number in left:
            status, body, _ = await connection.ask(requests[number])
            answers[number] = (status, body)
        connection.transport.close()

    await asyncio.gather(*(work() for _ in range(8)))
    return answers


def load(
    address: tuple[str, int],
    files: Sequence[Path],
    per_request: int,
    *,
    connections: int,
    seconds: float,
    labels: Sequence[str] = (),
) -> dict[str, object]:
    """Load from a second process; what came of it."""
    job = {
        "address": address,
        "files": [str(file) for file in files],
        "per_request": per_request,
        "connections": connections,
        "seconds": seconds,
        "labels": list(labels),
    }
    done = subprocess.run(
        [sys.executable, __file__, "--client"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


async def client(job: dict[str, object]) -> dict[str, object]:
    """The second process: every connection asks again as soon as it is answered."""
    files, size = [Path(file) for file in job["files"]], job["per_request"]
    groups = [range(start, start + size) for start in range(0, len(files) - size + 1, size)]
    requests = [request([files[i] for i in group], top=1) for group in groups]
    statuses: Counter[int] = Counter()
    found = {"images": 0, "lost": 0, "wrong": 0, "without_retry": 0}
    started = time.perf_counter()
    end = started + job["seconds"]
    turn = iter(range(1 << 60))

    async def work() -> None:
        connection = await connect(tuple(job["address"]))
        while time.perf_counter() < end:
            number = next(turn) % len(groups)
            try:
                status, body, retry = await asyncio.wait_for(connection.ask(requests[number]), 60)
            except (ConnectionError, TimeoutError):
                found["lost"] += 1
                connection = await connect(tuple(job["address"]))
                continue
            statuses[status] += 1
            found["without_retry"] += status == 503 and not retry
            if status == 200:
                found["images"] += size
                if job["labels"] and size == 1:
                    said = json.loads(body)["predictions"][0]
                    sure = said["probability"] > 0.6
                    found["wrong"] += sure and said["label"] != job["labels"][groups[number][0]]
        connection.transport.close()

    await asyncio.gather(*(work() for _ in range(job["connections"])))
    return {**found, "statuses": statuses, "elapsed": time.perf_counter() - started}


if __name__ == "__main__":
    if sys.argv[1:] == ["--client"]:
        try:
            import uvloop

            runner = uvloop.run
        except ImportError:
            runner = asyncio.run
        print(json.dumps(runner(client(json.load(sys.stdin)))))
    else:
        main()
