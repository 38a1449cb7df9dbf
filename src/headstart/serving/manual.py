"""A page that documents the interface, made from the OpenAPI document; FastAPI's own pages need a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

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


def manual(document: Mapping[str, Any], *, address: str, classes: Sequence[str]) -> str:
    """The page, as HTML.

    Args:
        document: OpenAPI.
        address: where this server was asked, with a slash at the end.
        classes: labels that the classifier gives now.
    """
    parts = [_operation(path, method, operation) for path, method, operation in _operations(document)]
    named = ", ".join(escape(label) for label in classes[:_MOST_CLASSES])
    more = f" and {len(classes) - _MOST_CLASSES} more" if len(classes) > _MOST_CLASSES else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Headstart: predictions over HTTP</title>'
        f"<style>{_STYLE}</style></head><body><main><h1>Predictions over HTTP</h1>"
        f"<p>This server gives one of {len(classes)} labels to an image: {named}{more}.</p>"
        f"<pre>{escape(_EXAMPLES.replace('ADDRESS', address))}</pre>"
        "<p>With a token, add <code>-H 'authorization: Bearer TOKEN'</code>. "
        'For programs: <a href="/openapi.json">the OpenAPI document</a>.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


def _operations(document: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [
        (path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]


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
