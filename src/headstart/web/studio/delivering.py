"""A run goes to where it is needed: exported to a file, or served on this machine."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Annotated, Any

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

USES = {
    "onnx": "any ONNX runtime, on any system",
    "openvino": "Intel processors, graphics and NPUs",
    "safetensors": "the weights alone, to go on training with timm",
    "torchscript": "PyTorch and its C++ library",
    "tflite": "phones and small boards",
    "saved_model": "TensorFlow Serving",
}


@router.get("/runs/{identity}/export")
def export_page(request: Request, studio: StudioOf, identity: str) -> Response:
    """Formats to export to, what was exported, and a server to start."""
    run = studio.run(identity)
    job = job_of(studio, "export", run.id)
    return page(
        request,
        "export.html",
        run=run,
        formats=_formats(),
        job=job if job and not job.over else None,
        failure=job.message if job and job.state == "failed" else "",
        result=job.result if job and job.state == "done" else None,
        files=_files(run),
        serving=studio.servings.get(run.id),
        command=f"headstart serve {shlex.quote(str(run.path))}",
        export_command=f"headstart export {shlex.quote(str(run.path))} --to onnx",
    )


def _formats() -> list[dict[str, Any]]:
    """What can be exported to: name, use, whether in eight bits, and the extra that is missing for it."""
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
    from headstart.exports.formats import find_format

    run = studio.run(identity)
    find_format(to).require(int8=bool(int8))
    if (run.path / "exports" / (f"{to}-int8" if int8 else to)).exists():
        raise OptionError(f"this run is exported to {to} already; its files are listed on the page before")
    body = {"title": run.config.data, "to": to, "int8": bool(int8)}
    return leave(request, f"/jobs/{studio.add('export', name=run.id, body=body).id}")


def export_job(studio: Studio, job: Job, teller: Teller) -> Result:
    """The job: export, and compare with the original."""
    from headstart.exports import export

    made = export(studio.run(job.name), to=job.body["to"], int8=job.body["int8"], progress=teller)
    facts = made.to_dict()
    return {**facts, "lines": _verdict(facts)}


def _verdict(facts: Mapping[str, Any]) -> list[str]:
    """What the comparison with the original said."""
    parity, spent = facts["parity"], facts["int8"]
    if spent is None:
        return [
            f"The same label as the original on {parity['images'] - parity['changed']:,} of "
            f"{parity['images']:,} photographs; probabilities differ by at most "
            f"{parity['largest_difference']:.1g}."
        ]
    return [
        f"In 8-bit integers {spent['accuracy']:.1%} against {spent['original']:.1%} on "
        f"{spent['images']:,} held-out photographs; {spent['agreement']:.1%} of the labels agree."
    ]


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
