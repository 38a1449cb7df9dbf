"""Sets up an application of pages: middleware, static files, error pages, templates, forms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import StatelessLifespan

from headstart.errors import HeadstartError, InternalError
from headstart.web.security import (
    LARGEST_FORM,
    SessionMiddleware,
    check_csrf,
    csrf_token,
    session_of,
    site_of,
)
from headstart.web.site import Site

SHARED = "headstart.web"
"""The package whose templates and files belong to all."""

Page = Callable[..., Response]
"""Makes a page: of a request, a template's name, a status and the template's values."""


def new_app(
    site: Site,
    *,
    name: str,
    package: str,
    routers: Iterable[APIRouter],
    page: Page,
    lifespan: StatelessLifespan[FastAPI],
    largest: Callable[[str], int] = lambda path: LARGEST_FORM,
    before: Sequence[Callable[..., Any]] = (),
    mounted: bool = False,
) -> FastAPI:
    """A FastAPI application of pages behind the session middleware.

    Args:
        site: what it serves.
        name: of the application; its cookie is named after it.
        package: has the application's files in ``static``.
        routers: the pages; the first that fits answers.
        page: makes the page that says what was refused or went wrong.
        lifespan: entered when the server starts, left when it stops.
        largest: see `SessionMiddleware`.
        before: asked before every page, as FastAPI's dependencies are.
        mounted: whether it stands within another application, whose middleware, files and lifespan it shares.
    """
    app = FastAPI(
        title=f"Headstart {name}",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(check_csrf), *map(Depends, before)],
        lifespan=lifespan,
    )
    app.state.site = site
    for router in routers:
        app.include_router(router)
    if not mounted:
        app.add_middleware(SessionMiddleware, site=site, name=name, largest=largest)
        app.mount("/static", StaticFiles(packages=[(package, "static"), (SHARED, "static")]), name="static")
    _answer_errors(app, page)
    return app


def _answer_errors(app: FastAPI, page: Page) -> None:
    def show(request: Request, status: int, text: str) -> Response:
        if request.headers.get("accept") == "application/json":
            return JSONResponse({"error": text}, status)
        title = HTTPStatus(status).phrase if status >= 500 or status == 404 else "Request failed"
        return page(request, "message.html", status=status, title=title, text=text)

    async def on_refusal(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = error.detail if isinstance(error, HTTPException) else ""
        plain = detail == HTTPStatus(status).phrase
        return show(request, status, "There is nothing at this address." if plain else detail)

    async def on_malformed(request: Request, error: Exception) -> Response:
        text = "This form or address is malformed. Go back, reload the page and try again."
        return show(request, 400, text)

    async def on_error(request: Request, error: Exception) -> Response:
        return show(request, 500 if isinstance(error, InternalError) else 400, f"{error}.")

    app.add_exception_handler(HTTPException, on_refusal)
    app.add_exception_handler(RequestValidationError, on_malformed)
    app.add_exception_handler(HeadstartError, on_error)


def new_environment(package: str, **filters: Callable[..., object]) -> Environment:
    """A Jinja environment with a package's templates and the shared ones; undefined names are errors."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader(SHARED)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment


def render(
    request: Request, environment: Environment, template: str, *, status: int = 200, **values: Any
) -> HTMLResponse:
    """Renders a template with the path, the CSRF token and the queue's trouble."""
    site = site_of(request)
    values = {
        "csrf": csrf_token(site, session_of(request)),
        "path": request.url.path.removeprefix(request.scope["root_path"]),
        "trouble": site.trouble,
        **values,
    }
    return HTMLResponse(environment.get_template(template).render(**values), status)


async def _form(request: Request) -> FormData:
    return await request.form()


FormOf = Annotated[FormData, Depends(_form)]
"""All fields of a form; the session's token was looked at before."""


def files_of(form: FormData) -> list[UploadFile]:
    """The uploaded files of a form."""
    return [file for file in form.getlist("files") if not isinstance(file, str) and file.filename]


def text_of(form: FormData, name: str) -> str:
    """A field of a form, empty where there is none."""
    found = form.get(name, "")
    return found if isinstance(found, str) else ""


def leave(request: Request, address: str) -> Response:
    """Redirects after a form; a script that sent it gets the address as JSON.

    ``address`` is within the application, or a whole one of its pages, as forms bring it.
    """
    root = request.scope["root_path"]
    if root and not address.startswith(f"{root}/"):
        address = root + address
    if request.headers.get("accept") == "application/json":
        return JSONResponse({"location": address})
    return RedirectResponse(address, 303)
