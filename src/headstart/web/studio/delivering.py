"""A run goes to where it is needed: exported to a file, or served on this machine."""

from __future__ import annotations

import shlex
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import FileResponse, Response

from headstart.errors import OptionError
from headstart.runs import Run
from headstart.sources import printable
from headstart.web.jobs import Job
from headstart.web.rendering import leave
from headstart.web.studio.pages import page
from headstart.web.studio.watching import job_of
from headstart.web.studio.work import Result, Teller
from headstart.web.studio.workbench import Studio, StudioOf

router = APIRouter()

FORMATS = {
    "onnx": "any ONNX runtime, on any system",
    "openvino": "Intel processors, graphics and NPUs",
    "safetensors": "the weights alone, to go on training with timm",
    "torchscript": "PyTorch and its C++ library",
    "tflite": "phones and small boards",
    "saved_model": "TensorFlow Serving",
}
INT8 = ("onnx", "openvino")


@router.get("/runs/{identity}/export")
def export_page(request: Request, studio: StudioOf, identity: str) -> Response:
    """Formats to export to, what was exported, and a server to start."""
    run = studio.run(identity)
    job = job_of(studio, "export", run.id)
    return page(
        request,
        "export.html",
        run=run,
        formats=FORMATS,
        int8=INT8,
        job=job if job and not job.over else None,
        failure=job.message if job and job.state == "failed" else "",
        result=job.result if job and job.state == "done" else None,
        files=_files(run),
        serving=studio.servings.get(run.id),
        command=f"headstart serve {shlex.quote(str(run.path))}",
        export_command=f"headstart export {shlex.quote(str(run.path))} --to onnx",
    )


def _files(run: Run) -> list[dict[str, object]]:
    """Every exported file, with its size."""
    folder = run.path / "exports"
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return [
        {"name": file.relative_to(folder).as_posix(), "bytes": file.stat().st_size}
        for file in files[:200]
        if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


@router.post("/runs/{identity}/export")
def begin(
    request: Request,
    studio: StudioOf,
    identity: str,
    to: Annotated[str, Form()],
    int8: Annotated[str, Form()] = "",
) -> Response:
    """Queues an export."""
    run = studio.run(identity)
    if to not in FORMATS:
        raise OptionError(f"{to!r}: expected one of {', '.join(FORMATS)}")
    if int8 and to not in INT8:
        raise OptionError(f"8-bit integers are possible for {' and '.join(INT8)}, not for {to}")
    body = {"title": run.config.data, "to": to, "int8": bool(int8)}
    return leave(request, f"/jobs/{studio.add('export', name=run.id, body=body).id}")


def export_job(studio: Studio, job: Job, teller: Teller) -> Result:
    """The job: export, and compare with the original."""
    from headstart import exports

    run = studio.run(job.name)
    teller("export", 0, 1)
    found = exports.export(run, job.body["to"], int8=job.body["int8"])
    teller("export", 1, 1)
    return {"format": job.body["to"], **found.to_dict()}


@router.get("/runs/{identity}/exports/{name:path}")
def download(studio: StudioOf, identity: str, name: str) -> Response:
    """One exported file. The name is looked up among those that are listed."""
    run = studio.run(identity)
    if name not in {each["name"] for each in _files(run)}:
        raise HTTPException(404, "There is no such export.")
    file = run.path / "exports" / name
    return FileResponse(
        file, filename=f"{run.id}-{printable(file.name)}", media_type="application/octet-stream"
    )


@router.post("/runs/{identity}/serve")
def serve(request: Request, studio: StudioOf, identity: str) -> Response:
    """Starts a server of this run on this machine."""
    run = studio.run(identity)
    studio.servings.start(run.id, run.path)
    return leave(request, f"/runs/{run.id}/export#serve")


@router.post("/runs/{identity}/unserve")
def unserve(request: Request, studio: StudioOf, identity: str) -> Response:
    """Stops it."""
    run = studio.run(identity)
    studio.servings.stop(run.id)
    return leave(request, f"/runs/{run.id}/export#serve")
