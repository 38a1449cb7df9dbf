"""The OpenAPI document of an application of pages: what its functions' signatures do not say.

Every form carries the session's token and answers with where to go next; every error is a page. FastAPI sees
neither, so its document is completed here, when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI

PAGE = "text/html"

ADDRESS = "/openapi.json"

_TEXT = {"type": "string"}
_BYTES = {"type": "string", "format": "binary"}
_OBJECT = {"type": "object"}
_LOCATION = {"type": "object", "required": ["location"], "properties": {"location": _TEXT}}
_CSRF = {"type": "string", "description": "the token in every form of this session's pages"}
_URL_ENCODED = "application/x-www-form-urlencoded"

_ERRORS = {
    "400": "something in the form or the address cannot be used",
    "401": "the access token is missing",
    "403": "not from a page of this session, or not allowed",
    "404": "there is nothing at this address",
    "409": "not now: it is over, or something else is under way",
    "410": "it was here, and is gone",
    "421": "the Host header is not one of ours",
}
_FORM_ERRORS = {"411": "the form's length is missing", "413": "the form is too large"}

Kinds = Mapping[str, Sequence[str]]
"""Media types of what is no page, by path."""

Uploads = Mapping[str, Mapping[str, Any]]
"""Fields of forms that bring files, as JSON Schema's properties, by path."""

FILE: Mapping[str, Any] = _BYTES
FILES: Mapping[str, Any] = {"type": "array", "items": _BYTES}
"""Schemas of fields with one file and with several."""


def describe(app: FastAPI, *, kinds: Kinds, uploads: Uploads) -> None:
    """Let an application's OpenAPI document say what its pages and forms do.

    Args:
        app: with all its routes.
        kinds: what of it is no page.
        uploads: which forms bring files.
    """
    plain = app.openapi

    def completed() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = plain()
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    if method == "get":
                        _describe_page(operation, kinds.get(path, (PAGE,)))
                    else:
                        _describe_form(operation, document, uploads.get(path))
            for unused in ("HTTPValidationError", "ValidationError"):
                document.get("components", {}).get("schemas", {}).pop(unused, None)
        return app.openapi_schema or {}

    app.openapi = completed  # type: ignore[method-assign]  # as FastAPI's documentation has it


def _describe_page(operation: dict[str, Any], kinds: Sequence[str]) -> None:
    shown = {
        "description": "what was asked for",
        "content": {kind: {"schema": _schema(kind)} for kind in kinds},
    }
    moved = {"description": "the same without the access token, or where it goes on"}
    operation["responses"] = {"200": shown, "303": moved, **_refusals(_ERRORS)}


def _describe_form(
    operation: dict[str, Any], document: Mapping[str, Any], files: Mapping[str, Any] | None
) -> None:
    told = {"schema": _LOCATION}
    operation["responses"] = {
        "200": {
            "description": "where to go, for a script: sent with Accept: application/json",
            "content": {"application/json": told},
        },
        "303": {"description": "where to go"},
        **_refusals({**_ERRORS, **_FORM_ERRORS}),
    }
    body = operation.setdefault("requestBody", {"content": {_URL_ENCODED: {"schema": {"type": "object"}}}})
    body["required"] = True
    if files is not None:
        fields = {"type": "object", "properties": dict(files), "additionalProperties": False}
        body["content"] = {"multipart/form-data": {"schema": fields}}
    for content in body["content"].values():
        schema = content["schema"]
        reference = schema.get("$ref", "").rpartition("/")[2]
        schema = document["components"]["schemas"][reference] if reference else schema
        schema.setdefault("properties", {})["csrf"] = _CSRF
        schema["required"] = [*schema.get("required", ()), "csrf"]


def _refusals(texts: Mapping[str, str]) -> dict[str, Any]:
    content = {kind: {"schema": _schema(kind)} for kind in (PAGE, "text/plain", "application/json")}
    return {status: {"description": text, "content": content} for status, text in texts.items()}


def _schema(kind: str) -> dict[str, Any]:
    if kind == "application/json":
        return _OBJECT
    if kind == "text/event-stream":
        return {}  # a stream has no end that a schema could be held against
    return _TEXT if kind.startswith("text/") else _BYTES
