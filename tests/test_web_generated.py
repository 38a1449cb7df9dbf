"""Requests generated from what the pages' functions declare: none of them meets a server error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from headstart.lesson.engine.rosters import Row
from lesson_worlds import lesson_worlds
from studio_worlds import studio_worlds

EXAMPLES = 8
"""Of each operation."""

FILE: Mapping[str, Any] = {"type": "string", "format": "binary"}
FILES: Mapping[str, Any] = {"type": "array", "items": FILE}
UPLOADS: Mapping[str, Mapping[str, Any]] = {
    "/send": {"files": FILES, "label": {"type": "string"}, "into": {"type": "string"}},
    "/runs/{identity}/predict": {"files": FILE},
    "/runs/{identity}/label": {"files": FILES, "path": {"type": "string"}},
}
"""Forms that bring files, which are read as they come: their fields are declared nowhere."""


Known = Callable[[str], Mapping[str, list[Any]]]
"""For an operation's path, values of its parameters that exist."""


def bombard(browser: Any, *, token: str, known: Known) -> dict[str, set[int]]:
    """Sends generated requests to every page and form; the statuses that each answered."""
    seen: dict[str, set[int]] = {}
    for found in schemathesis.openapi.from_dict(declared(browser.app)).get_all_operations():
        operation = found.ok()
        answered = seen[f"{operation.method.upper()} {operation.path}"] = set()
        asking(browser, operation, token=token, places=known(operation.path), answered=answered)()
    return seen


def declared(app: FastAPI) -> dict[str, Any]:
    """The routes as FastAPI describes them, every form with the session's token."""
    document = app.openapi()
    for path, operations in document["paths"].items():
        if "post" not in operations:
            continue
        body = operations["post"].setdefault(
            "requestBody", {"content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}}
        )
        body["required"] = True
        if path in UPLOADS:
            fields = {"type": "object", "properties": UPLOADS[path], "additionalProperties": False}
            body["content"] = {"multipart/form-data": {"schema": fields}}
        for content in body["content"].values():
            name = content["schema"].get("$ref", "").rpartition("/")[2]
            schema = document["components"]["schemas"][name] if name else content["schema"]
            schema["properties"] = {**schema.get("properties", {}), "csrf": {"type": "string"}}
            schema["required"] = [*schema.get("required", ()), "csrf"]
    return document


def asking(
    browser: Any, operation: Any, *, token: str, places: Mapping[str, list[Any]], answered: set[int]
) -> Callable[[], None]:
    """Asks with generated forms and addresses, about half of them of what exists."""

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), real=st.booleans(), data=st.data())
    def ask(case: Any, real: bool, data: st.DataObject) -> None:
        for name in case.path_parameters.keys() & places.keys():
            if real:
                case.path_parameters[name] = data.draw(st.sampled_from(places[name]))
        if isinstance(case.body, dict):
            case.body = {"csrf": token, **{key: value for key, value in case.body.items() if key != "csrf"}}
        sent = case.as_transport_kwargs()
        sent.pop("cookies", None)
        answer = browser.request(**sent, follow_redirects=False)
        answer.request.read()  # a form with files is streamed; the checks want to see it
        answered.add(answer.status_code)
        case.validate_response(answer, checks=[not_a_server_error])

    return cast("Callable[[], None]", ask)


def test_generated_requests_to_the_studio_meet_no_server_error(
    tmp_path: Path, make_photos: Callable[..., Path]
) -> None:
    make_photos(tmp_path / "root" / "photos", per_class=8)
    with studio_worlds(tmp_path / "root") as make:
        studio = make()
        data = studio.open()
        studio.plan(data)
        run = studio.train(data).rsplit("/", 1)[1]
        there = {
            "data": [data.rsplit("/", 1)[1]],
            "runs": [run],
            "jobs": [job.id for job in studio.studio.work.history("fit", learner="studio")],
        }

        def known(path: str) -> Mapping[str, list[Any]]:
            if path.endswith(("/forget", "/remove", "/serve")):
                return {}  # what is gone would be missed; a server takes seconds
            return {"identity": there.get(path.split("/")[1], ["none"]), "job": there["jobs"]}

        seen = bombard(studio.browser, token=studio.csrf(), known=known)
    assert len(seen) > 35
    asked = {status for answers in seen.values() for status in answers}
    assert {200, 303, 400, 404} <= asked and 403 not in seen["POST /open"]
    pages = [
        name for name in seen if name.startswith("GET /data/") or name.startswith("GET /runs/{identity}")
    ]
    assert sum(200 in seen[name] for name in pages) >= 6, "what exists was hardly asked for"


def test_generated_requests_to_the_lesson_meet_no_server_error(tmp_path: Path) -> None:
    with lesson_worlds(tmp_path) as make:
        world = make()
        challenge = world.begin().rsplit("/", 1)[1]
        one, _ = world.site.classes.create("10b", pack=world.site.pack.slug, now=world.clock.now)
        world.site.classes.enrol(one, [Row("Ada")])
        [member] = world.site.classes.members(one.id)

        def known(path: str) -> Mapping[str, list[Any]]:
            name = "challenge" if path.startswith("/modes/") else "one-pass"
            identity = one.id if path.startswith("/classes/") else challenge
            there = {"identity": [identity], "learner": [member.learner], "number": [1, 2], "name": [name]}
            there["kind"] = ["csv", "xlsx"]
            return {} if path.endswith(("/dismiss", "/erase")) else there

        seen = bombard(world.browser, token=world.csrf(), known=known)
    assert len(seen) > 20
    assert 200 in seen["GET /challenges/{identity}/{number}/state"]
    assert 200 in seen["GET /modes/{name}"]
    pages = {name: answers for name, answers in seen.items() if name.startswith("GET /classes/{identity}")}
    missed = {name: answers for name, answers in pages.items() if 200 not in answers}
    assert len(pages) >= 6 and not missed, missed
