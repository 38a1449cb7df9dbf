"""A Hugging Face hub on this machine: as much of its protocol as pushing and pulling a model takes."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_abc"
_COMMIT = "0" * 40


@dataclass
class Hub:
    """What lies there: files by repository, and whether each is private."""

    address: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub that takes `TOKEN` alone."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *given: Any) -> None:
            return

        def answer(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def json(self, value: Any, status: int = 200) -> None:
            self.answer(status, json.dumps(value).encode(), content_type="application/json")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            if self.headers["authorization"] != f"Bearer {TOKEN}":
                self.json({"error": "Invalid username or password."}, 401)
                return
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[1:3] == ["repos", "create"]:
                asked = json.loads(body)
                name = f"{asked['organization']}/{asked['name']}"
                hub.files[name], hub.private[name] = (
                    {},
                    asked.get("visibility", asked.get("private"))
                    in (
                        True,
                        "private",
                    ),
                )
                self.json({"url": f"{hub.address}/{name}", "name": name, "id": name})
            elif parts[1] == "validate-yaml":
                self.json({"errors": [], "warnings": []})
            elif parts[4] == "preupload":
                modes = [
                    {"path": each["path"], "uploadMode": "regular"} for each in json.loads(body)["files"]
                ]
                self.json({"files": [{**each, "shouldIgnore": False, "oid": None} for each in modes]})
            else:
                name = "/".join(parts[2:4])
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        hub.files[name][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                url = f"{hub.address}/{name}/commit/{_COMMIT}"
                self.json({"success": True, "commitOid": _COMMIT, "commitUrl": url})

        def do_GET(self) -> None:
            parts = self.path.split("?")[0].strip("/").split("/")
            if parts[0] == "api":
                name = "/".join(parts[2:4])
                siblings = [{"rfilename": each} for each in hub.files.get(name, ())]
                found = {"id": name, "sha": _COMMIT, "siblings": siblings, "private": True}
                if "tree" in parts:
                    self.json(
                        [
                            {"type": "file", "path": each, "size": len(data), "oid": _hash(data)}
                            for each, data in hub.files.get(name, {}).items()
                        ]
                    )
                    return
                self.json(
                    found if name in hub.files else {"error": "not found"}, 200 if name in hub.files else 404
                )
                return
            data = hub.files["/".join(parts[:2])]["/".join(parts[4:])]
            self.answer(200, data, etag=f'"{_hash(data)}"', x_repo_commit=_COMMIT)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _hash(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
