"""What the pages' OpenAPI documents say is true, and no form that they describe brings a server down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lesson_worlds import lesson_worlds
from studio_worlds import studio_worlds

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 8
"""Of each operation."""


Known = Callable[[str], Mapping[str, list[Any]]]
"""For an operation's path, values of its parameters that exist."""


def bombard(browser: Any, *, token: str, known: Known) -> dict[str, set[int]]:
    """Sends generated requests to every operation of the document; the statuses that each answered."""
    document = browser.get("/openapi.json").json()
    seen: dict[str, set[int]] = {}
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        answered = seen[f"{operation.method.upper()} {operation.path}"] = set()
        asking(browser, operation, token=token, places=known(operation.path), answered=answered)()
    return seen


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
        case.validate_response(answer, checks=CHECKS)

    return cast("Callable[[], None]", ask)


def test_the_studios_document_is_true_and_its_forms_meet_no_server_error(
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
            if path.endswith(
                ("/forget", "/serve")
            ):  # what is forgotten would be missed; a server takes seconds
                return {}
            return {"identity": there.get(path.split("/")[1], ["none"]), "job": there["jobs"]}

        seen = bombard(studio.browser, token=studio.csrf(), known=known)
    assert len(seen) > 35
    asked = {status for answers in seen.values() for status in answers}
    assert {200, 303, 400, 404} <= asked and 403 not in seen["POST /open"]
    pages = [
        name for name in seen if name.startswith("GET /data/") or name.startswith("GET /runs/{identity}")
    ]
    assert sum(200 in seen[name] for name in pages) >= 6, "what exists was hardly asked for"


def test_the_lessons_document_is_true_and_its_forms_meet_no_server_error(tmp_path: Path) -> None:
    with lesson_worlds(tmp_path) as make:
        world = make()
        challenge = world.begin().rsplit("/", 1)[1]

        def known(path: str) -> Mapping[str, list[Any]]:
            name = "challenge" if path.startswith("/modes/") else "one-pass"
            return {"identity": [challenge], "number": [1, 2], "name": [name]}

        seen = bombard(world.browser, token=world.csrf(), known=known)
    assert len(seen) > 20
    assert 200 in seen["GET /challenges/{identity}/{number}/state"]
    assert 200 in seen["GET /modes/{name}"]


def test_a_document_is_for_those_alone_who_may_see_the_pages(tmp_path: Path) -> None:
    with lesson_worlds(tmp_path) as make:
        world = make(token="s3cret-token")
        assert world.browser.get("/openapi.json", headers={"host": "evil.example"}).status_code == 421
        assert world.browser.get("/openapi.json").status_code == 401
