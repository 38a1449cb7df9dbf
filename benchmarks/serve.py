"""`headstart serve` under load from a second process, against what decoding plus the network allow.

First every image's answer is compared with `classifier.predict`. Then, in turns so that both see the same
machine, images are decoded and run in this process (the ceiling: all cores, no HTTP, and no load beside it,
which makes it the stricter one), and the server is loaded over kept-alive connections by a process of its
own, whose work comes out of the same cores; what each spends of them is printed too.
Then ten times as many connections ask at once and ask again the moment that they are refused: refusals must
be 503 with Retry-After, and every request that was not refused must be answered rightly. `--soak` keeps that
load up and prints the server's memory.

    python benchmarks/serve.py ../shared/data/flowers [--images-per-request 1] [--form body] [--soak 600]
"""

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

TARGET = 0.7
CONNECTIONS = 32
OVERLOAD = 10
PATIENCE = 60.0
"""Seconds without any answer after which the requests under way count as lost."""
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
    parser.add_argument(
        "--form", choices=("multipart", "body"), default="multipart", help="body: the image itself, alone"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="of each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--soak", type=float, default=20.0, help="seconds of tenfold load")
    options = parser.parse_args()
    if options.form == "body" and options.images_per_request != 1:
        parser.error("--form body: a body is one image")
    with tempfile.TemporaryDirectory() as scratch:
        run = fitted(options.data, Path(scratch))
        files = sorted(path for path in options.data.rglob("*.jpg"))[:: max(1, 1000 // options.images)]
        files = files[: options.images]
        with server(run) as (address, process):
            expected = compare_answers(run, files, address)
            measure(run, files, address, process, options)
            overload(files, address, process, expected, options)


def fitted(data: Path, scratch: Path) -> Path:
    """A classifier of these photographs, with `builtin` at its default size."""
    import headstart

    headstart.fit(data, backbone="builtin", out=scratch / "run")
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
    answers = ask_all(address, [request([file], top=1000) for file in files])
    for prediction, (status, body) in zip(wanted, answers, strict=True):
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
    return [json.loads(body)["predictions"][0]["label"] for _, body in answers]


def measure(
    run: Path,
    files: Sequence[Path],
    address: tuple[str, int],
    process: subprocess.Popen[str],
    options: argparse.Namespace,
) -> None:
    """Ceiling and server in turns; prints the ratio of the medians, and whose time went where."""
    ceiling = Ceiling(run, files)
    ceiling.images_per_second(1.0)
    load(address, files, options, connections=CONNECTIONS, seconds=1.0)
    ratios, costs = [], []
    for _ in range(options.turns):
        before = time.process_time()
        most, images = ceiling.images_per_second(options.seconds)
        own, servers = time.process_time() - before, cpu_seconds(process.pid)
        outcome = load(address, files, options, connections=CONNECTIONS, seconds=options.seconds)
        servers = cpu_seconds(process.pid) - servers
        served = outcome["images"] / outcome["elapsed"]
        ratios.append(served / most)
        costs.append((own / images, servers / outcome["images"], outcome["cpu"] / outcome["images"]))
        print(f"  ceiling {most:7.0f} images/s   served {served:7.0f}   {outcome['statuses']}")
    alone, server, client = (1e3 * statistics.median(column) for column in zip(*costs, strict=True))
    print(
        f"{options.images_per_request} images a request ({options.form}), {CONNECTIONS} connections: "
        f"served / ceiling {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; "
        f"at least {TARGET} wanted)"
    )
    print(
        f"processor time an image: {alone:.2f} ms decoding and network alone, {server:.2f} ms the server, "
        f"{client:.2f} ms the load; with the load beside it nothing could do better than "
        f"{alone / (alone + client):.2f} of the ceiling, and by processor time it is "
        f"{alone / (server + client):.2f}"
    )


def cpu_seconds(pid: int) -> float:
    """Processor time of another process, all threads, user and system (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Ceiling:
    """Decoding in threads, then the network over whole batches, overlapping, with nothing else to do."""

    def __init__(self, run: Path, files: Sequence[Path]) -> None:
        import headstart

        self.classifier = headstart.load(run)
        self.data = [file.read_bytes() for file in files]
        self.network = self.classifier.compiled(32)

    def images_per_second(self, seconds: float) -> tuple[float, int]:
        """Images a second over about so many seconds, and how many there were."""
        from headstart.data.images import CENTRE, open_image, render, shortest_side_needed

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
        return images / (time.perf_counter() - started), images


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
            options,
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


def request(files: Sequence[Path], *, top: int = 5, form: str = "multipart") -> bytes:
    """A whole HTTP request, ready to be sent: the client must cost little, for it shares the cores."""
    if form == "body":
        body, kind = files[0].read_bytes(), "image/jpeg"
    else:
        mark = "headstart-benchmark-9c1d"
        parts = [
            f'--{mark}\r\ncontent-disposition: form-data; name="images"; filename="{file.name}"\r\n'
            "content-type: image/jpeg\r\n\r\n".encode()
            + file.read_bytes()
            + b"\r\n"
            for file in files
        ]
        body, kind = b"".join([*parts, f"--{mark}--\r\n".encode()]), f"multipart/form-data; boundary={mark}"
    head = (
        f"POST /predict?top={top} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
        f"content-type: {kind}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """One kept-alive connection over a plain socket: what the load costs is taken from the server's cores."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address, self.number = address, -1
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.left, self.come, self.answered = memoryview(b""), b"", False

    def ask(self, number: int, data: bytes) -> None:
        """Send a request, as far as the system takes it."""
        self.number, self.left, self.come, self.answered = number, memoryview(data), b"", False
        self.send()

    def send(self) -> None:
        """Send what is left."""
        with suppress(BlockingIOError):
            self.left = self.left[self.socket.send(self.left) :]

    def answer(self) -> tuple[int, bytes, bool] | None:
        """Status, body and whether there was a Retry-After, once all of it has come."""
        piece = self.socket.recv(1 << 16)
        if not piece:
            raise ConnectionError("the connection ended before the answer")
        self.come += piece
        head, found, body = self.come.partition(b"\r\n\r\n")
        if not found:
            return None
        head = head.lower()
        if len(body) < int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]):
            return None
        return int(head[9:12]), body, b"retry-after:" in head


Answered = Callable[[int, int, bytes, bool], None]
"""Is told a request's number, its answer's status and body, and whether there was a Retry-After."""


def exchange(
    address: tuple[str, int],
    requests: Sequence[bytes],
    *,
    numbers: Iterator[int],
    connections: int,
    answered: Answered,
) -> int:
    """Ask over so many connections, each again as soon as it was answered; how many requests were lost."""
    lost = 0
    selector = selectors.DefaultSelector()

    def follow(connection: Connection) -> None:
        """Send the next request, or end the connection."""
        number = next(numbers, None)
        if number is None:
            selector.unregister(connection.socket)
            connection.socket.close()
            return
        connection.ask(number, requests[number])
        watch(connection)

    def watch(connection: Connection) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.left else 0)
        if selector.get_key(connection.socket).events != wanted:
            selector.modify(connection.socket, wanted, connection)

    def begin() -> None:
        connection = Connection(address)
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        follow(connection)

    def attend(connection: Connection, events: int) -> None:
        """Send and receive; a refusal may come before all of its request was sent."""
        if events & selectors.EVENT_WRITE:
            connection.send()
            watch(connection)
        found = connection.answer() if events & selectors.EVENT_READ else None
        if found:
            answered(connection.number, *found)
            connection.answered = True
        if connection.answered and not connection.left:
            follow(connection)

    for _ in range(connections):
        begin()
    while selector.get_map():
        ready = selector.select(PATIENCE)
        if not ready:  # no answer for so long: none will come
            return lost + len(selector.get_map())
        for key, events in ready:
            try:
                attend(key.data, events)
            except ConnectionError:
                lost += not key.data.answered
                selector.unregister(key.data.socket)
                key.data.socket.close()
                begin()
    return lost


def ask_all(address: tuple[str, int], requests: Sequence[bytes]) -> list[tuple[int, bytes]]:
    """Each request once, over 8 connections; answers in order."""
    answers: list[tuple[int, bytes]] = [(0, b"")] * len(requests)

    def answered(number: int, status: int, body: bytes, retry: bool) -> None:
        answers[number] = (status, body)

    exchange(address, requests, numbers=iter(range(len(requests))), connections=8, answered=answered)
    return answers


def load(
    address: tuple[str, int],
    files: Sequence[Path],
    options: argparse.Namespace,
    *,
    connections: int,
    seconds: float,
    labels: Sequence[str] = (),
) -> dict[str, Any]:
    """Load from a second process; what came of it."""
    job = {
        "address": address,
        "files": [str(file) for file in files],
        "per_request": options.images_per_request,
        "form": options.form,
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


def client(job: dict[str, Any]) -> dict[str, Any]:
    """The second process: every connection asks again as soon as it is answered."""
    files, size = [Path(file) for file in job["files"]], job["per_request"]
    groups = [range(start, start + size) for start in range(0, len(files) - size + 1, size)]
    requests = [request([files[i] for i in group], top=1, form=job["form"]) for group in groups]
    statuses: Counter[int] = Counter()
    found = {"images": 0, "wrong": 0, "without_retry": 0}

    def answered(number: int, status: int, body: bytes, retry: bool) -> None:
        statuses[status] += 1
        found["without_retry"] += status == 503 and not retry
        if status == 200:
            found["images"] += size
            if job["labels"] and size == 1:
                said = json.loads(body)["predictions"][0]
                found["wrong"] += said["probability"] > 0.6 and said["label"] != job["labels"][number]

    started, before = time.perf_counter(), time.process_time()
    lost = exchange(
        tuple(job["address"]),
        requests,
        numbers=_turns(len(groups), end=started + job["seconds"]),
        connections=job["connections"],
        answered=answered,
    )
    elapsed = time.perf_counter() - started
    return {
        **found,
        "lost": lost,
        "statuses": statuses,
        "elapsed": elapsed,
        "cpu": time.process_time() - before,
    }


def _turns(count: int, *, end: float) -> Iterator[int]:
    number = 0
    while time.perf_counter() < end:
        yield number % count
        number += 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--client"]:
        print(json.dumps(client(json.load(sys.stdin))))
    else:
        main()
