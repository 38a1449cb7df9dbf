"""What a page says where something was refused or went wrong; the lesson and the studio say the same."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from headstart.errors import HeadstartError, InternalError

Show = Callable[[Request, int, str], Response]
"""Makes a page of a request, a status and one line of text."""


def answer_errors(app: FastAPI, show: Show) -> None:
    """Lets an application answer every error with a page that says what to do.

    Args:
        app: the application.
        show: makes the page.
    """

    async def on_refusal(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        detail = error.detail if isinstance(error, HTTPException) else ""
        plain = detail == HTTPStatus(status).phrase
        return show(request, status, "There is nothing at this address." if plain else detail)

    async def on_malformed(request: Request, error: Exception) -> Response:
        return show(
            request, 400, "This form or address is malformed. Go back, reload the page and try again."
        )

    async def on_error(request: Request, error: Exception) -> Response:
        return show(request, 500 if isinstance(error, InternalError) else 400, f"{error}.")

    app.add_exception_handler(HTTPException, on_refusal)
    app.add_exception_handler(RequestValidationError, on_malformed)
    app.add_exception_handler(HeadstartError, on_error)
