"""Answers that a browser saves as a file."""

from __future__ import annotations

import tempfile
import unicodedata
import zipfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse

_PIECE = 1 << 18


def saved_as(name: str) -> dict[str, str]:
    """The header that gives a file its name (RFC 6266): plain ASCII, and as it is for those who read that."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = "".join(each if each.isalnum() or each in " .-_" else "-" for each in plain).strip(" .") or "file"
    return {
        "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
    }


def table(data: bytes, name: str) -> Response:
    """A CSV file."""
    return Response(data, media_type="text/csv; charset=utf-8", headers=saved_as(name))


def workbook(data: bytes, name: str) -> Response:
    """An Excel workbook."""
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    return Response(data, media_type=kind, headers=saved_as(name))


def zipped(members: Iterable[tuple[str, bytes | Path]], name: str, *, compress: bool = True) -> Response:
    """A zip of names and bytes or files; it passes through a temporary file, which ends with the answer."""
    packed = tempfile.TemporaryFile()  # noqa: SIM115 - the answer closes it
    try:
        method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        with zipfile.ZipFile(packed, "w", method) as archive:
            for member, data in members:
                if isinstance(data, Path):
                    archive.write(data, member)
                else:
                    archive.writestr(member, data)
    except BaseException:
        packed.close()
        raise
    length = packed.tell()
    packed.seek(0)
    return StreamingResponse(
        iter(lambda: packed.read(_PIECE), b""),
        media_type="application/zip",
        headers=saved_as(name) | {"content-length": str(length)},
        background=BackgroundTask(packed.close),
    )
