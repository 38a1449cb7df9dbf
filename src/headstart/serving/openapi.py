"""The OpenAPI document, and the page that shows it to people; public viewers of OpenAPI need a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import headstart
from headstart.serving.uploads import PredictBody

MOST_LABELS = 1000
"""Of the likeliest labels in an answer."""

LABELS = 5
"""As many as an answer has where the request does not say."""

_REFUSALS = {
    400: "the body is not readable",
    401: "the token is missing or wrong",
    403: "a request from another site's page",
    408: "the request took too long to arrive",
    413: "the request is too large",
    415: "neither multipart/form-data nor application/json nor an image",
    421: "the Host header is not one of ours",
    422: "a value is not usable, or an image cannot be decoded",
    503: "too busy; Retry-After says when to come back",
    504: "accepted, but not answered in time",
}
_GUARDED = (401, 403, 421)
"""Statuses that every address may answer with."""


def _object(description: str = "", *, optional: Iterable[str] = (), **properties: Any) -> dict[str, Any]:
    required = [name for name in properties if name not in set(optional)]
    return {"type": "object", "description": description, "required": required, "properties": properties}


def _list(items: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_PAIR = _list({}, prefixItems=[_TEXT, _NUMBER], minItems=2, maxItems=2)
_SHARE = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
_SCHEMAS: dict[str, Any] = {
    "PredictBody": PredictBody.model_json_schema(),
    "PredictAnswer": _object(
        "One prediction for each image, in their order.",
        run=_TEXT,
        predictions=_list({"$ref": "#/components/schemas/Prediction"}),
    ),
    "Prediction": _object(
        "What the classifier says of one image.",
        optional=["label", "probability", "top", "familiarity", "known", "labels", "value", "interval"],
        name=_TEXT,
        label=_TEXT,
        probability=_NUMBER,
        top=_list(_PAIR),
        familiarity={**_NUMBER, "description": "share of known images at least as strange as this one"},
        known={"type": "boolean", "description": "whether that is at least `reject`, where it was asked for"},
        labels=_list(_TEXT, description="of a multi-label classifier; else the set that `coverage` asks for"),
        value={**_NUMBER, "description": "where a number is predicted; then there are no labels"},
        interval=_list(_NUMBER, minItems=2, maxItems=2, description="around the number"),
    ),
    "Error": _object("What went wrong, in one line.", error=_TEXT),
    "Ready": _object("What is served.", run=_TEXT, since=_TEXT, task=_TEXT),
    "Health": _object(
        "That the server is there, and what of it is not well.",
        optional=["trouble"],
        status={"type": "string", "enum": ["ok", "degraded", "down"]},
        trouble=_list(_TEXT),
    ),
}


def _json(description: str, schema: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    return {"description": description, "content": content}


def _responses(statuses: Iterable[int], answers: Mapping[str, Any]) -> dict[str, Any]:
    refused = {str(status): _json(_REFUSALS[status], "Error") for status in statuses}
    return {**refused, **answers}


_PREDICT = {
    "summary": "Label one or many images.",
    "description": "One image is the body itself (`image/…` is taken likewise); several come as files in the "
    "field `images`, or as base64 in JSON. All are labelled or none is.",
    "operationId": "predict",
    "parameters": [
        {
            "name": "top",
            "in": "query",
            "description": "how many labels to give",
            "schema": {"type": "integer", "minimum": 1, "maximum": MOST_LABELS, "default": LABELS},
        },
        *(
            {"name": name, "in": "query", "description": description, "schema": _SHARE}
            for name, description in (
                ("reject", "share of images like the training images that may be taken for unknown ones"),
                ("coverage", "share of images whose `labels` or `interval` shall hold what is right"),
            )
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _object(
                    images=_list(
                        {"type": "string", "format": "binary"},
                        minItems=1,
                        description="image files; repeat the field for several",
                    )
                )
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/PredictBody"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "responses": _responses(_REFUSALS, {"200": _json("the labels", "PredictAnswer")}),
}
_HEALTH = {
    "summary": "Is the server there?",
    "description": "Answers while the server takes requests; needs no token.",
    "operationId": "health",
    "responses": _responses(
        _GUARDED,
        {"200": _json("it is", "Health"), "503": _json("it cannot classify any more", "Health")},
    ),
}
_READY = {
    "summary": "What is served?",
    "description": "The run, and since when; 503 where it cannot classify.",
    "operationId": "ready",
    "responses": _responses(
        _GUARDED,
        {"200": _json("what is served", "Ready"), "503": _json("it cannot classify any more", "Error")},
    ),
}
_METRICS = {
    "summary": "Counters for Prometheus.",
    "operationId": "metrics",
    "responses": _responses(
        _GUARDED, {"200": {"description": "the counters", "content": {"text/plain": {"schema": _TEXT}}}}
    ),
}


def openapi_document(*, secured: bool) -> dict[str, Any]:
    """What the server offers, as OpenAPI 3.1; ``secured`` where clients must bring a token."""
    token: dict[str, Any] = {"security": [{"token": []}]} if secured else {}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Headstart", "summary": "Labels for images.", "version": headstart.__version__},
        "paths": {
            "/predict": {"post": {**_PREDICT, **token}},
            "/health": {"get": _HEALTH},
            "/ready": {"get": {**_READY, **token}},
            "/metrics": {"get": {**_METRICS, **token}},
        },
        "components": {"schemas": _SCHEMAS},
    }
    if secured:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return document


# The page -------------------------------------------------------------------------------------------------

_MOST_CLASSES = 200
"""Labels that the page names."""

_STYLE = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:46rem;margin:2rem auto;padding:0 1rem}
code,pre{font:.9em/1.5 ui-monospace,monospace}
pre{padding:.8rem;border:1px solid #8886;border-radius:.4rem;overflow-x:auto}
table{border-collapse:collapse}
td,th{text-align:left;vertical-align:top;padding:.2rem 1rem .2rem 0}
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
CONTENT_POLICY = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; frame-ancestors 'none'"

_EXAMPLES = """\
curl -F images=@first.jpg -F images=@second.jpg 'ADDRESSpredict?top=3'

curl -H 'content-type: image/jpeg' --data-binary @first.jpg ADDRESSpredict

curl -H 'content-type: application/json' \\
     -d "{\\"images\\": [\\"$(base64 -w0 first.jpg)\\"]}" ADDRESSpredict
"""


def docs_page(
    document: Mapping[str, Any], *, address: str, classes: Sequence[str], task: str = "single-label"
) -> str:
    """The page, as HTML.

    Args:
        document: OpenAPI.
        address: where this server was asked, with a slash at the end.
        classes: labels that the classifier gives now.
        task: what it predicts.
    """
    parts = [
        _operation(path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    gives = {"single-label": "gives one of", "multi-label": "gives any of"}.get(task)
    named = ", ".join(escape(label) for label in classes[:_MOST_CLASSES])
    more = f" and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
    told = f"{gives} {len(classes)} labels to an image: {named}{more}" if gives else "predicts a number"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Headstart: predictions over HTTP</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>Predictions over HTTP</h1>"
        f"<p>This server {told}.</p>"
        f"<pre>{escape(_EXAMPLES.replace('ADDRESS', address))}</pre>"
        "<p>With a token, add <code>-H 'authorization: Bearer TOKEN'</code>. "
        'For programs: <a href="/openapi.json">the OpenAPI document</a>.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    rows = [
        (f"?{parameter['name']}=", parameter.get("description", ""))
        for parameter in operation.get("parameters", ())
    ]
    rows += [(kind, "a body of this type") for kind in operation.get("requestBody", {}).get("content", ())]
    rows += [(status, answer.get("description", "")) for status, answer in operation["responses"].items()]
    table = "".join(
        f"<tr><th scope='row'><code>{escape(str(name))}</code></th><td>{escape(text)}</td></tr>"
        for name, text in rows
    )
    return (
        f"<h2><code>{escape(method.upper())} {escape(path)}</code></h2><p>{escape(operation['summary'])} "
        f"{_marked(operation.get('description', ''))}</p><table>{table}</table>"
    )


def _marked(text: str) -> str:
    """Text as HTML; what stands between backticks is code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))
