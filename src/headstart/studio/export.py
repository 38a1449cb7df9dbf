"""The page that exports a run or serves it on this machine."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import FileResponse, Response

from headstart.errors import OptionError, printable
from headstart.runs import Run
from headstart.studio.jobs import job_of, told_of
from headstart.studio.state import RunOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.studio.workers import Result, Teller
from headstart.web import downloads
from headstart.web.app import leave
from headstart.web.jobs import Job

router = APIRouter()

_MOST_FILES = 200
"""Files of all exports of a run that are listed."""


USES = {
    "onnx": "any ONNX runtime, on any system",
    "openvino": "Intel processors, graphics and NPUs",
    "safetensors": "the weights alone, to go on training with timm",
    "torchscript": "PyTorch and its C++ library",
    "tflite": "phones and small boards",
    "saved_model": "TensorFlow Serving",
}


@router.get("/runs/{identity}/export")
def export_page(request: Request, studio: StudioOf, run: RunOf) -> Response:
    """Formats to export to, what was exported, and a server to start."""
    job = job_of(studio, "export", run.id)
    return page(
        request,
        "export.html",
        run=run,
        formats=_formats(),
        **told_of(job),
        result=job.result if job and job.state == "done" else None,
        exports=_exports(run),
        serving=studio.servings.get(run.id),
        command=f"headstart serve {shlex.quote(str(run.path))}",
        export_command=f"headstart export {shlex.quote(str(run.path))} --to onnx",
    )


def _formats() -> list[dict[str, Any]]:
    """Export formats: name, use, int8 support, and the extra that is missing."""
    from headstart.exports import FORMATS

    return [
        {
            "name": each.name,
            "use": USES.get(each.name, ""),
            "int8": each.quantises,
            "missing": each.extra if any(find_spec(module) is None for module in each.modules) else "",
        }
        for each in FORMATS.values()
    ]


def _exports(run: Run) -> list[dict[str, Any]]:
    """Every finished export: its name, and its files with their sizes."""
    folder = run.path / "exports"
    found: dict[str, list[dict[str, Any]]] = {}
    for name, file in _files(run).items():
        found.setdefault(name.split("/")[0], []).append({"name": name, "bytes": file.stat().st_size})
    return [
        {"name": name, "files": files, "bytes": sum(each["bytes"] for each in files)}
        for name, files in found.items()
        if (folder / name).is_dir()
    ]


def _files(run: Run) -> dict[str, Path]:
    """The files of every finished export, by their names below the run's folder of exports."""
    folder = run.path / "exports"
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    named = {file.relative_to(folder).as_posix(): file for file in files[:_MOST_FILES]}
    return {name: file for name, file in named.items() if not f"/{name}".count("/.")}


@router.post("/runs/{identity}/export")
def begin(
    request: Request,
    studio: StudioOf,
    run: RunOf,
    to: Annotated[str, Form()],
    int8: Annotated[str, Form()] = "",
) -> Response:
    """Queues an export."""
    from headstart.exports.formats import find_format

    find_format(to).require(int8=bool(int8))
    if (run.path / "exports" / (f"{to}-int8" if int8 else to)).exists():
        raise OptionError(f"this run is exported to {to} already; its files are listed on the page before")
    body = {"title": run.config.data, "to": to, "int8": bool(int8)}
    return leave(request, f"/jobs/{studio.add('export', name=run.id, body=body).id}")


def export_job(studio: Studio, job: Job, teller: Teller) -> Result:
    """The job: export, and compare with the original."""
    from headstart.exports import export
    from headstart.exports.cards import parity_text

    made = export(studio.run(job.name), to=job.body["to"], int8=job.body["int8"], progress=teller.on_progress)
    facts = made.to_dict()
    return {**facts, "lines": parity_text(facts["parity"], facts["int8"]).split("\n\n")}


@router.get("/runs/{identity}/exports/{name:path}")
def download(run: RunOf, name: str) -> Response:
    """One exported file. The name is looked up among those that are listed."""
    file = _files(run).get(name)
    if file is None:
        raise HTTPException(404, "There is no such export.")
    return FileResponse(
        file, filename=f"{run.id}-{printable(file.name)}", media_type="application/octet-stream"
    )


@router.get("/runs/{identity}/exports.zip")
def download_all(run: RunOf, export: str) -> Response:
    """One whole export as a zip, which unpacks to a folder of its own."""
    files = {name: file for name, file in _files(run).items() if name.split("/")[0] == export}
    if not files:
        raise HTTPException(404, "There is no such export.")
    top = "".join(each if each.isascii() and each.isalnum() else "-" for each in f"{run.id}-{export}")
    members = ((f"{top}/{name.split('/', 1)[1]}", file) for name, file in files.items())
    return downloads.zipped(members, f"{top}.zip")


@router.post("/runs/{identity}/serve")
def serve(request: Request, studio: StudioOf, run: RunOf) -> Response:
    """Starts a server of this run on this machine."""
    studio.servings.start(run.id, run.path)
    return leave(request, f"/runs/{run.id}/export#serve")


@router.post("/runs/{identity}/unserve")
def unserve(request: Request, studio: StudioOf, run: RunOf) -> Response:
    """Stops it."""
    studio.servings.stop(run.id)
    return leave(request, f"/runs/{run.id}/export#serve")
