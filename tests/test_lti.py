"""LTI 1.3: launches of a platform that runs here, each refused case, deep linking, names and marks.

The cases of refused and valid launches are those of 1EdTech's public certification suite for LTI 1.3 core.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime
from email.message import Message
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fastapi.testclient import TestClient

from headstart.errors import LessonError
from headstart.lesson.engine import asking, lti, lti_launches, lti_services
from headstart.lesson.engine.attempts import Opened, Reset, Submitted, begin
from headstart.lesson.engine.lti import Platforms, ToolKeys
from headstart.lesson.pages.joining import DOOR
from lesson_worlds import World, lesson_worlds
from lti_platforms import AGS, CORE, DEEP, ROLE, TOOL, TestPlatform, platforms

SETTINGS = f"{DEEP}deep_linking_settings"
VOCABULARY = "http://purl.imsglobal.org/vocab/lis/v2/"
AWAY = "https://campus.example/return?course=1"
COURSE = f"{CORE}context"


@pytest.fixture(scope="module")
def served() -> Iterator[TestPlatform]:
    with platforms() as found:
        yield found


@pytest.fixture(scope="module")
def tool_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tool")
    ToolKeys(home).public()
    return home / "keys"


@pytest.fixture
def platform(served: TestPlatform) -> Iterator[TestPlatform]:
    fresh = TestPlatform(address=served.address, keys=served.keys)
    served.answer = fresh.answer  # type: ignore[method-assign]
    yield fresh


@pytest.fixture
def world(tmp_path: Path, platform: TestPlatform, tool_key: Path) -> Iterator[World]:
    shutil.copytree(tool_key, tmp_path / "keys")
    with lesson_worlds(tmp_path) as make:
        found = make(learner=None, door=DOOR, token="of-this-server")
        Platforms(found.site.store).add(**platform.registration)
        platform.tool_keys = ToolKeys(tmp_path).public()
        yield found


def browser(world: World) -> TestClient:
    return TestClient(world.browser.app, base_url=TOOL)


def seconds(world: World) -> float:
    return world.clock.now.timestamp()


def arrive(world: World, platform: TestPlatform, **changes: Any) -> Any:
    """A launch in a browser of its own, up to the page that it leads to."""
    return platform.launch(browser(world), now=seconds(world), follow=True, **changes)


def test_a_learner_comes_into_the_class_of_the_course_and_is_the_same_next_time(
    world: World, platform: TestPlatform
) -> None:
    first = browser(world)
    page = platform.launch(first, now=seconds(world), follow=True)
    assert page.status_code == 200 and page.url.path == "/" and "token" not in str(page.url)
    (one,) = world.site.classes.all()
    (member,) = world.site.classes.members(one.id)
    assert (one.name, member.name, member.joined) == ("Biology 10b", "Ada Lovelace", world.clock.now)
    assert first.get("/me").status_code == 200 and first.get(f"/classes/{one.id}").status_code == 404
    arrive(world, platform)
    arrive(world, platform, sub="30", name="Ada Lovelace")
    names = [each.name for each in world.site.classes.members(one.id)]
    assert names == ["Ada Lovelace", "Ada Lovelace (2)"], "one user is one member, and two of a name are two"
    arrive(world, platform, **{COURSE: {"id": "course-2", "title": "Biology 10b"}})
    assert [each.name for each in world.site.classes.all()] == ["Biology 10b", "Biology 10b (2)"]


def test_a_teacher_comes_to_the_page_of_the_course_and_to_no_other(
    world: World, platform: TestPlatform
) -> None:
    other, _ = world.site.classes.create("Another", pack=world.site.pack.slug, now=world.clock.now)
    teacher = browser(world)
    page = platform.launch(
        teacher, now=seconds(world), follow=True, **{f"{CORE}roles": [f"{ROLE}Instructor"]}
    )
    one = world.site.classes.named("Biology 10b")
    assert page.url.path == f"/classes/{one.id}" and page.status_code == 200
    assert teacher.get(f"/classes/{other.id}").status_code == 404
    assert not world.site.classes.members(one.id), "who teaches is not a learner"


@pytest.mark.parametrize(
    ("changes", "teaches", "name"),
    [
        ({"name": None, "given_name": "Ada", "family_name": "L."}, False, "Ada L."),
        ({"name": None, "email": "ada@campus.example"}, False, "Learner 1"),
        ({"name": " \n "}, False, "Learner 1"),
        ({COURSE: None}, False, "Ada Lovelace"),
        ({f"{CORE}roles": []}, False, "Ada Lovelace"),
        ({f"{CORE}roles": ["https://campus.example/roles#Wizard", 7]}, False, "Ada Lovelace"),
        ({f"{CORE}roles": [f"{VOCABULARY}institution/person#Instructor"]}, False, "Ada Lovelace"),
        ({f"{CORE}roles": ["Instructor"]}, True, ""),
        ({f"{CORE}roles": [f"{ROLE}Learner", f"{ROLE}Administrator"]}, True, ""),
        ({f"{CORE}roles": [f"{VOCABULARY}membership/Instructor#TeachingAssistant"]}, True, ""),
        ({"aud": ["tool-1", "other"], "azp": "tool-1"}, False, "Ada Lovelace"),
        ({"aud": ["tool-1"]}, False, "Ada Lovelace"),
        ({f"{CORE}custom": {"a": "b"}, "https://campus.example/unknown": 1}, False, "Ada Lovelace"),
    ],
)  # fmt: skip
def test_a_valid_launch_needs_no_more_than_the_specification_asks(
    world: World, platform: TestPlatform, changes: dict[str, Any], teaches: bool, name: str
) -> None:
    page = arrive(world, platform, **changes)
    assert page.status_code == 200 and page.url.path.startswith("/classes/") is teaches
    members = world.site.classes.members(world.site.classes.named(None).id)
    assert [member.shown for member in members] == ([] if teaches else [name])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"iss": "https://evil.example"}, "another issuer"),
    "no issuer": ({"iss": None}, "another issuer"),
    "another audience": ({"aud": "tool-2"}, "for another tool"),
    "no audience": ({"aud": None}, "for another tool"),
    "audience among others, unsaid": ({"aud": ["tool-1", "tool-2"]}, "does not say which"),
    "authorized for another": ({"aud": ["tool-1", "tool-2"], "azp": "tool-2"}, "for another tool"),
    "expired": ({"exp": -100}, "has expired"),
    "old": ({"iat": -4000}, "has expired"),
    "from the future": ({"iat": 4000, "exp": 5000}, "in the future"),
    "expires before it was made": ({"iat": 30, "exp": 20}, "in the future"),
    "no expiry": ({"exp": None}, "when it was made and expires"),
    "no time": ({"iat": None}, "when it was made and expires"),
    "time in words": ({"exp": "soon"}, "when it was made and expires"),
    "another nonce": ({"nonce": "other"}, "does not answer this login"),
    "no nonce": ({"nonce": None}, "does not answer this login"),
    "another version": ({f"{CORE}version": "1.1"}, "not of LTI 1.3.0"),
    "no version": ({f"{CORE}version": None}, "not of LTI 1.3.0"),
    "another message": ({f"{CORE}message_type": "LtiSubmissionReviewRequest"}, "none that is known here"),
    "no message": ({f"{CORE}message_type": None}, "none that is known here"),
    "another deployment": ({f"{CORE}deployment_id": "8"}, "another deployment"),
    "no deployment": ({f"{CORE}deployment_id": None}, "another deployment"),
    "deployments as a list": ({f"{CORE}deployment_id": ["7"]}, "another deployment"),
    "no roles": ({f"{CORE}roles": None}, "in which role"),
    "no user": ({"sub": None}, "does not say who"),
    "an empty user": ({"sub": ""}, "does not say who"),
    "a user of very many letters": ({"sub": "u" * 300}, "does not say who"),
    "no link": ({f"{CORE}resource_link": None}, "which link"),
    "a link without id": ({f"{CORE}resource_link": {"title": "x"}}, "which link"),
    "another address": ({f"{CORE}target_link_uri": "https://evil.example/lti/launch"}, "for another address"),
    "an address that begins like ours": (
        {f"{CORE}target_link_uri": f"{TOOL}.evil.example/"},
        "for another address",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_must_be_refused_is_refused(world: World, platform: TestPlatform, case: str) -> None:
    changes, says = REFUSED[case]
    moved = {
        name: seconds(world) + value if name in ("iat", "exp") and isinstance(value, int) else value
        for name, value in changes.items()
    }
    page = arrive(world, platform, **moved)
    assert page.status_code == 400 and says in page.text and page.headers["cache-control"] == "no-store"
    assert not world.site.classes.all(), "nothing was made"


def _public_pem(platform: TestPlatform) -> bytes:
    key = next(iter(platform.keys.values())).public_key()
    pem: bytes = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem


def _signed_hs256(platform: TestPlatform, claims: dict[str, Any]) -> str:
    """The old confusion: the public key taken for a shared secret."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "first"}).encode())
    body = part(json.dumps(claims).encode())
    mac = hmac.new(_public_pem(platform), f"{head}.{body}".encode(), hashlib.sha256).digest()
    return f"{head}.{body}.{part(mac)}"


FORGED: dict[str, tuple[Callable[[TestPlatform, dict[str, Any]], str], str]] = {
    "unsigned": (lambda p, c: jwt.encode(c, None, "none", headers={"kid": "first"}), "signed with 'none'"),
    "public key as secret": (_signed_hs256, "signed with 'HS256'"),
    "another key": (
        lambda p, c: jwt.encode(c, rsa.generate_private_key(65537, 2048), "RS256", headers={"kid": "first"}),
        "not the platform's",
    ),
    "altered": (lambda p, c: _altered(p.sign(c)), "not the platform's"),
    "no key named": (lambda p, c: p.sign(c, kid=None), "does not name its key"),
    "an unknown key": (lambda p, c: p.sign(c, kid="other"), "no key of the name"),
    "a key of one's own in the header": (
        lambda p, c: p.sign(c, kid="other", jku="https://evil.example/keys"), "no key of the name",
    ),
    "no token": (lambda p, c: "", "sent no token"),
    "no token at all": (lambda p, c: "a.b.c", "sent no token"),
}  # fmt: skip


def _altered(token: str) -> str:
    head, body, signature = token.split(".")
    return ".".join((head, body[:-4] + ("AAAA" if body[-4:] != "AAAA" else "BBBB"), signature))


@pytest.mark.parametrize("case", FORGED)
def test_a_token_that_the_platform_did_not_sign_is_refused(
    world: World, platform: TestPlatform, case: str
) -> None:
    forge, says = FORGED[case]
    client = browser(world)
    asked = platform.begin(client)
    token = forge(platform, platform.claims(asked["nonce"], now=seconds(world)))
    page = platform.post(client, {"state": asked["state"], "id_token": token})
    assert page.status_code == 400 and says in page.text
    assert not world.site.classes.all()


def test_a_launch_counts_once_in_the_browser_that_began_it_and_for_ten_minutes(
    world: World, platform: TestPlatform
) -> None:
    client = browser(world)
    asked = platform.begin(client)
    form = {
        "state": asked["state"],
        "id_token": platform.sign(platform.claims(asked["nonce"], now=seconds(world))),
    }
    assert "already" in platform.post(client, {**form, "state": "made-up"}).text
    stolen = platform.post(browser(world), form)
    assert stolen.status_code == 400 and "did not begin the launch" in stolen.text
    assert "already" in platform.post(client, form).text, "who tried another's state has used it up"
    asked = platform.begin(client)
    form = {
        "state": asked["state"],
        "id_token": platform.sign(platform.claims(asked["nonce"], now=seconds(world))),
    }
    assert platform.post(client, form).status_code == 303
    assert "already" in platform.post(client, form).text
    asked = platform.begin(client)
    world.clock.forward(601)
    form = {
        "state": asked["state"],
        "id_token": platform.sign(platform.claims(asked["nonce"], now=seconds(world))),
    }
    assert "too old" in platform.post(client, form).text


def test_a_ticket_of_a_launch_admits_once(world: World, platform: TestPlatform) -> None:
    first, second = browser(world), browser(world)
    ticket = platform.launch(first, now=seconds(world)).headers["location"]
    assert first.get(ticket).url.path == "/" and first.get("/me").status_code == 200
    assert (
        second.get(ticket).url.path == DOOR and second.get("/me", follow_redirects=False).status_code == 303
    )


def test_a_ticket_of_a_launch_admits_the_browser_of_the_launch_alone(
    world: World, platform: TestPlatform
) -> None:
    first, second = browser(world), browser(world)
    led = platform.launch(first, now=seconds(world))
    cookie = next(each for each in led.headers.get_list("set-cookie") if "headstart_ticket" in each)
    assert all(part in cookie for part in ("Secure", "HttpOnly", "SameSite=none", "Max-Age=60"))
    platform.launch(second, now=seconds(world), sub="30", name="Eve")
    assert second.get(led.headers["location"]).url.path == DOOR, "nobody is made to learn as somebody else"
    assert first.get(led.headers["location"]).url.path == DOOR, "what somebody else has seen is void"


def test_a_ticket_of_a_launch_is_soon_too_old(
    world: World, platform: TestPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, now = browser(world), time.monotonic()
    ticket = platform.launch(client, now=seconds(world)).headers["location"]
    monkeypatch.setattr("headstart.web.site.time", SimpleNamespace(monotonic=lambda: now + 90))
    assert client.get(ticket).url.path == DOOR


def test_a_learner_in_a_teachers_browser_is_no_teacher(world: World, platform: TestPlatform) -> None:
    client = browser(world)
    assert client.get("/?token=of-this-server").url.path == "/"
    platform.launch(client, now=seconds(world), follow=True, **{f"{CORE}roles": [f"{ROLE}Instructor"]})
    address = f"/classes/{world.site.classes.named('Biology 10b').id}"
    assert client.get(address).status_code == 200
    assert platform.launch(client, now=seconds(world), follow=True).status_code == 200
    assert client.get("/me").status_code == 200 and client.get(address).status_code == 404
    (member,) = world.site.classes.members(world.site.classes.named(None).id)
    world.site.classes.dismiss(member.learner)
    assert client.get("/").url.path == DOOR, "the access token was brought by who was here before"


def test_a_platform_that_changes_its_keys_is_asked_again_and_not_more_often(
    world: World, platform: TestPlatform
) -> None:
    assert arrive(world, platform).status_code == 200 and platform.key_requests == 1
    arrive(world, platform)
    assert platform.key_requests == 1, "keys that are known are not asked for"
    platform.new_key("second")
    assert "no key of the name" in arrive(world, platform).text, "within half a minute nobody asks again"
    world.clock.forward(31)
    assert arrive(world, platform).status_code == 200 and platform.key_requests == 2
    client = browser(world)
    for _ in range(5):
        asked = platform.begin(client)
        claims = platform.claims(asked["nonce"], now=seconds(world))
        platform.post(client, {"state": asked["state"], "id_token": platform.sign(claims, kid="made-up")})
    assert platform.key_requests == 2


def test_keys_that_cannot_be_had_are_a_refusal(world: World, platform: TestPlatform) -> None:
    for status in (500, 302):
        platform.broken = status
        page = arrive(world, platform)
        assert page.status_code == 400 and "keys cannot be had" in page.text
        world.clock.forward(31)


def test_keys_that_could_not_be_had_are_not_asked_for_at_once_again(
    world: World, platform: TestPlatform
) -> None:
    asked: list[str] = []

    def ask(address: str) -> bytes:
        asked.append(address)
        raise LessonError("nobody is there")

    keys, (one,) = lti.PlatformKeys(ask), Platforms(world.site.store).all()
    for _ in range(3):
        with pytest.raises(lti.LaunchRefused, match="nobody is there"):
            keys.find(one, "k", now=world.clock.now)
    assert len(asked) == 1
    world.clock.forward(31)
    with pytest.raises(lti.LaunchRefused):
        keys.find(one, "k", now=world.clock.now)
    assert len(asked) == 2


def test_a_platform_that_is_slow_keeps_no_other_ones_users_waiting(
    world: World, platform: TestPlatform
) -> None:
    (slow,), go, begun = Platforms(world.site.store).all(), threading.Event(), threading.Event()
    other = replace(slow, keys="https://other.example/keys")

    def ask(address: str) -> bytes:
        if address == slow.keys:
            begun.set()
            assert go.wait(10)
        return b'{"keys": []}'

    keys = lti.PlatformKeys(ask)

    def find(one: lti.Platform) -> None:
        with pytest.raises(lti.LaunchRefused, match="no key"):
            keys.find(one, "k", now=world.clock.now)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(find, slow)
        assert begun.wait(10)
        try:
            pool.submit(find, other).result(timeout=5)
        finally:
            go.set()
        first.result()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"iss": "https://evil.example"}, "is not registered here"),
        ({"client_id": "tool-2"}, "is not registered here"),
        ({"login_hint": ""}, "for whom it asks"),
    ],
)
def test_a_login_of_a_stranger_leads_nowhere(
    world: World, platform: TestPlatform, changes: dict[str, str], says: str
) -> None:
    form = {"iss": platform.issuer, "client_id": platform.client, "login_hint": "29", **changes}
    page = browser(world).post("/lti/login", data=form, follow_redirects=False)
    assert page.status_code == 400 and says in page.text


def test_a_login_asks_what_the_specification_says_and_keeps_a_cookie_that_comes_back(
    world: World, platform: TestPlatform
) -> None:
    client = browser(world)
    asked = platform.begin(client, client_id="")
    expected = {
        "scope": "openid",
        "response_type": "id_token",
        "response_mode": "form_post",
        "prompt": "none",
    }
    assert {name: asked[name] for name in expected} == expected
    assert (
        asked["redirect_uri"] == f"{TOOL}/lti/launch"
        and asked["lti_message_hint"] == "m"
        and asked["a"] == "b"
    )
    form = {"iss": platform.issuer, "login_hint": "29"}
    cookie = browser(world).get("/lti/login", params=form, follow_redirects=False).headers["set-cookie"]
    assert all(part in cookie for part in ("Secure", "HttpOnly", "SameSite=none", "Path=/lti/"))
    Platforms(world.site.store).add(**{**platform.registration, "client": "tool-2"})
    assert "more than once" in client.post("/lti/login", data=form).text


def test_what_is_not_asked_by_a_platform_is_not_answered(
    world: World, tmp_path: Path, platform: TestPlatform
) -> None:
    client = browser(world)
    assert client.post("/lti/login", data={"iss": "x" * 70_000}).status_code == 413
    assert client.get("/lti/keys", headers={"host": "evil.example"}).status_code == 421
    assert client.get("/lti/launch").status_code == 405 and client.get("/lti/other").status_code == 404
    assert client.get("/lti/keys").headers["x-content-type-options"] == "nosniff"
    for page in ("login", "launch"):
        for charset in ("utf-7", "undefined"):
            text = '--b\r\ncontent-disposition: form-data; name="state"\r\n\r\n+2AA-\r\n--b--\r\n'
            heads = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
            assert client.post(f"/lti/{page}", content=text, headers=heads).status_code == 415
    denied = client.post("/lti/launch", data={"error": "login_required", "state": "x"})
    assert denied.status_code == 400 and "login_required" in denied.text
    with lesson_worlds(tmp_path / "alone") as make:
        alone = TestClient(make().browser.app, base_url=TOOL)
        assert alone.get("/lti/keys").status_code == 404, "where no class is served there are no launches"


# Deep linking, names, marks ---------------------------------------------------------------------------------


def deep(**changes: Any) -> dict[str, Any]:
    found = {
        f"{CORE}message_type": "LtiDeepLinkingRequest",
        f"{CORE}roles": [f"{ROLE}Instructor"],
        f"{CORE}resource_link": None,
        f"{CORE}target_link_uri": None,
        SETTINGS: {"deep_link_return_url": AWAY, "accept_types": ["ltiResourceLink"], "data": "kept"},
    }
    return found | changes


def test_deep_linking_puts_a_link_with_a_column_into_the_course(world: World, platform: TestPlatform) -> None:
    page = arrive(world, platform, **deep())
    assert page.status_code == 200 and f'action="{AWAY}"' in page.text
    assert "form-action https://campus.example;" in page.headers["content-security-policy"]
    token = unescape(re.search(r'name="JWT" value="([^"]+)"', page.text)[1])  # type: ignore[index]
    key = jwt.PyJWK(platform.tool_keys["keys"][0]).key
    told = jwt.decode(
        token, key, ["RS256"], audience=platform.issuer, issuer=platform.client, options={"verify_iat": False}
    )
    assert told[f"{CORE}message_type"] == "LtiDeepLinkingResponse" and told[f"{DEEP}data"] == "kept"
    assert told[f"{CORE}deployment_id"] == platform.deployment and told["nonce"]
    (item,) = told[f"{DEEP}content_items"]
    assert item["url"] == f"{TOOL}/lti/launch" and item["lineItem"]["scoreMaximum"] == 500
    assert not world.site.classes.all()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{CORE}roles": [f"{ROLE}Learner"]}, "Only who teaches"),
        ({SETTINGS: None}, "where the link shall go"),
        ({SETTINGS: {"deep_link_return_url": "http://campus.example/"}}, "where the link shall go"),
        ({SETTINGS: {"deep_link_return_url": "javascript:alert(1)"}}, "where the link shall go"),
        ({SETTINGS: {"deep_link_return_url": "https://a;script-src *;/"}}, "where the link shall go"),
    ],
)
def test_deep_linking_that_leads_astray_is_refused(
    world: World, platform: TestPlatform, changes: dict[str, Any], says: str
) -> None:
    page = arrive(world, platform, **deep(**changes))
    assert page.status_code == 400 and says in page.text


def teacher_of(
    world: World, platform: TestPlatform, **changes: Any
) -> tuple[TestClient, str, dict[str, str]]:
    """A teacher's browser, the class's page, and the form of its course."""
    client = browser(world)
    page = platform.launch(
        client, now=seconds(world), follow=True, **{f"{CORE}roles": [f"{ROLE}Instructor"], **changes}
    )
    place = str(page.url.path)
    text = client.get(f"{place}/marks").text
    form = dict(re.findall(r'name="(csrf|context|platform)" value="([^"]*)"', text))
    return client, place, form


def test_names_of_a_course_come_into_the_class(world: World, platform: TestPlatform) -> None:
    platform.people = [
        {"user_id": "29", "name": "Ada Lovelace", "roles": [f"{ROLE}Learner"], "status": "Active"},
        {"user_id": "30", "given_name": "Alan", "family_name": "Turing", "roles": ["Learner"]},
        {"user_id": "31", "name": "Gone", "roles": ["Learner"], "status": "Inactive"},
        {"user_id": "1", "name": "Teacher", "roles": [f"{ROLE}Instructor"]},
        {"name": "Nobody", "roles": ["Learner"]},
        {"user_id": "32", "roles": ["Learner"]},
    ]
    arrive(world, platform)
    client, place, form = teacher_of(world, platform)
    page = client.post(f"{place}/marks/send", data={**form, "what": "names"})
    assert page.status_code == 200 and "3 of the course" in page.text
    members = world.site.classes.members(place.rsplit("/", 1)[1])
    assert [member.shown for member in members] == ["Ada Lovelace", "Alan Turing", "Learner 3"]
    assert [member.joined is not None for member in members] == [True, False, False]


def test_marks_go_to_the_course_and_say_how_far_each_has_come(world: World, platform: TestPlatform) -> None:
    arrive(world, platform)
    arrive(world, platform, sub="30", name="Alan")
    arrive(world, platform, sub="31", name="Grace")
    one = world.site.classes.named(None)
    learners = [member.learner for member in world.site.classes.members(one.id)]
    play(world, learners[0], "rrrrr")
    play(world, learners[1], "rw---")
    client, place, form = teacher_of(world, platform)
    page = client.post(f"{place}/marks/send", data={**form, "what": "marks"})
    assert "Marks of 2 learners were sent." in page.text
    (first, ada), (_, alan) = platform.scores
    assert first == "/columns/1/scores?type=a", "the address of a column may hold a query"
    assert (ada["userId"], ada["scoreGiven"], ada["scoreMaximum"]) == ("29", 500, 500)
    assert (ada["activityProgress"], ada["gradingProgress"]) == ("Completed", "FullyGraded")
    assert (alan["userId"], alan["scoreGiven"], alan["activityProgress"]) == ("30", 100, "InProgress")
    assert re.fullmatch(r"2030-01-01T\d\d:\d\d:\d\d\.\d{3}Z", ada["timestamp"])
    assert len(platform.tokens) == 1


def test_whose_challenges_were_reset_loses_the_mark_in_the_course(
    world: World, platform: TestPlatform
) -> None:
    arrive(world, platform)
    learner = world.site.classes.members(world.site.classes.named(None).id)[0].learner
    play(world, learner, "rrrrr")
    world.site.store.record(f"c-{learner}", Reset(), world.clock.now)
    client, place, form = teacher_of(world, platform)
    client.post(f"{place}/marks/send", data={**form, "what": "marks"})
    ((_, told),) = platform.scores
    assert told.pop("timestamp") and told == {
        "userId": "29",
        "activityProgress": "Initialized",
        "gradingProgress": "NotReady",
    }


def test_a_mark_that_is_refused_keeps_no_other_one_back(world: World, platform: TestPlatform) -> None:
    for subject in ("29", "30", "31"):
        arrive(world, platform, sub=subject, name=subject)
    for member in world.site.classes.members(world.site.classes.named(None).id):
        play(world, member.learner, "rrrrr")
    client, place, form = teacher_of(world, platform)
    platform.refused = {"29": 404}
    page = client.post(f"{place}/marks/send", data={**form, "what": "marks"})
    assert page.status_code == 200 and "Marks of 2 learners were sent, 1 refused" in page.text
    assert "not this one" in page.text and [told["userId"] for _, told in platform.scores] == ["30", "31"]
    for status in (401, 403, 503):
        platform.refused = {"29": status}
        page = client.post(f"{place}/marks/send", data={**form, "what": "marks"})
        assert page.status_code == 502 and len(platform.scores) == 2, "who refuses us is not asked again"


def test_the_column_of_a_class_without_learners_has_the_points_of_the_lesson(
    world: World, platform: TestPlatform
) -> None:
    scopes = [f"{AGS}scope/score", f"{AGS}scope/lineitem"]
    endpoint = {"scope": scopes, "lineitems": f"{platform.address}/columns"}
    client, place, form = teacher_of(world, platform, **{f"{AGS}claim/endpoint": endpoint})
    client.post(f"{place}/marks/send", data={**form, "what": "marks"})
    assert [column["scoreMaximum"] for column in platform.columns] == [500]


def test_a_name_that_is_no_text_is_none(world: World, platform: TestPlatform) -> None:
    platform.people = [
        {"user_id": "29", "given_name": 5, "family_name": "Lovelace", "roles": ["Learner"]},
        {"user_id": "30", "name": {"a": 1}, "roles": ["Learner"]},
    ]
    client, place, form = teacher_of(world, platform)
    page = client.post(f"{place}/marks/send", data={**form, "what": "names"})
    assert page.status_code == 200
    members = world.site.classes.members(place.rsplit("/", 1)[1])
    assert [member.shown for member in members] == ["Lovelace", "Learner 2"]


def test_a_platform_elsewhere_names_no_address_of_this_machine(
    world: World, platform: TestPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, here = Platforms(world.site.store), f"{platform.address}/columns"
    (local,) = known.all()
    away = known.add(**{**platform.registration, "token": "https://campus.example/token"})
    link = lti.Link(away.id, "c", "7/x", "", here, here, (lti_services.SCORE, lti_services.LINEITEM), here)
    asked: list[str] = []

    def ask(address: str, **_: Any) -> asking.Answer:
        asked.append(address)
        made = {"access_token": "t", "id": here, "members": []}
        return asking.Answer(200, Message(), json.dumps(made).encode())

    monkeypatch.setattr(lti_services, "ask", ask)
    for one, outcome in ((away, pytest.raises(LessonError, match="not HTTPS")), (local, nullcontext())):
        services = lti_services.Services(one, ToolKeys(world.site.home), now=world.clock.now)
        with outcome:
            list(services.people(link))
    assert asked == [local.token, here]
    services = lti_services.Services(away, ToolKeys(world.site.home), now=world.clock.now)
    with pytest.raises(LessonError, match="no column"):
        columns = replace(link, lineitem="", lineitems="https://campus.example/columns")
        services.column(columns, title="t", possible=1)


@pytest.mark.parametrize("following", ["http://[", "https://h:abc/", "file:///etc/passwd"])
def test_a_next_page_that_is_no_address_is_told(world: World, platform: TestPlatform, following: str) -> None:
    platform.more_people = following
    client, place, form = teacher_of(world, platform)
    page = client.post(f"{place}/marks/send", data={**form, "what": "names"})
    assert page.status_code == 502 and "the platform named" in page.text.lower()


def test_a_launch_meanwhile_does_not_lose_the_column_that_was_made(
    world: World, platform: TestPlatform
) -> None:
    known = Platforms(world.site.store)
    arrive(world, platform, **{f"{AGS}claim/endpoint": None})
    (one,) = known.all()
    stale = known.link(one, "7/course-1")
    assert stale is not None and not stale.lineitem
    known.revise(one, stale, lambda there: replace(there, lineitem="https://campus.example/1"))
    known.revise(one, stale, lambda there: replace(there, resource="link-2"))
    now = known.link(one, "7/course-1")
    assert now == replace(stale, lineitem="https://campus.example/1", resource="link-2")


def test_courses_of_one_name_get_classes_of_two_however_it_is_spelt(
    world: World, platform: TestPlatform
) -> None:
    for number, title in enumerate(("Caf\u00e9", "Cafe\u0301", "CAFE\u0301", "\u0958" * 80)):
        page = arrive(world, platform, **{COURSE: {"id": f"cafe-{number}", "title": title}})
        assert page.status_code == 200, page.text
    names = {one.name for one in world.site.classes.all()}
    assert names >= {"Caf\u00e9", "Caf\u00e9 (2)", "CAF\u00c9 (3)"} and len(names) == 4


def test_two_who_come_first_at_once_come_into_one_class(
    world: World, platform: TestPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = world.site.classes.create

    def slowly(*given: Any, **named: Any) -> Any:
        time.sleep(0.2)
        return create(*given, **named)

    monkeypatch.setattr(world.site.classes, "create", slowly)
    with ThreadPoolExecutor() as pool:
        pages = list(pool.map(lambda subject: arrive(world, platform, sub=subject), ("29", "30")))
    assert [page.status_code for page in pages] == [200, 200] and len(world.site.classes.all()) == 1


def play(world: World, learner: str, pattern: str) -> None:
    """A challenge in the store: problem n is answered as the n-th letter says; see `lesson_packs.taken`."""
    event = begin(world.site.pack, challenge=f"c-{learner}", learner=learner, seed="s")
    state = world.site.store.start(event, world.clock.now)
    for item, letter in zip(state.items, pattern, strict=True):
        wrong = [identity for identity, _ in item.layout.options if identity != item.layout.answer]
        answers = {"r": [item.layout.answer], "w": wrong[:2], "-": []}[letter]
        if answers:
            world.site.store.record(state.id, Opened(item.problem), world.clock.now)
        for place, answer in enumerate(answers):
            event_of = Submitted(item.problem, answer, f"{item.problem}{place}")
            world.site.store.record(state.id, event_of, world.clock.now)


def test_a_course_without_a_column_gets_one_and_one_without_services_says_so(
    world: World, platform: TestPlatform
) -> None:
    services = {
        f"{AGS}claim/endpoint": {
            "scope": [f"{AGS}scope/score", f"{AGS}scope/lineitem"],
            "lineitems": f"{platform.address}/columns",
        }
    }
    arrive(world, platform, **services)
    play(world, world.site.classes.members(world.site.classes.named(None).id)[0].learner, "rrrrr")
    client, place, form = teacher_of(world, platform, **services)
    for _ in range(2):
        assert "Marks of 1" in client.post(f"{place}/marks/send", data={**form, "what": "marks"}).text
    assert len(platform.columns) == 1 and platform.columns[0]["scoreMaximum"] == 500
    assert platform.scores[-1][0] == "/columns/made/scores?x=1"
    platform.broken = 500
    page = client.post(f"{place}/marks/send", data={**form, "what": "marks"})
    assert page.status_code == 502 and "answered 500" in page.text
    platform.broken = 0
    bare = {f"{AGS}claim/endpoint": None, COURSE: {"id": "course-3", "title": "Bare"}}
    client, place, form = teacher_of(world, platform, **bare)
    page = client.post(f"{place}/marks/send", data={**form, "what": "marks"})
    assert page.status_code == 502 and "takes no marks" in page.text


def test_another_classs_teacher_sends_nothing(world: World, platform: TestPlatform) -> None:
    arrive(world, platform)
    _, _, form = teacher_of(world, platform)
    client, place, own = teacher_of(world, platform, **{COURSE: {"id": "course-2", "title": "Other"}})
    form["csrf"] = own["csrf"]
    assert client.post(f"{place}/marks/send", data={**form, "what": "marks"}).status_code == 404
    assert client.post(f"{place}/marks/send", data={**own, "what": "secrets"}).status_code == 404
    assert not platform.scores


# Keys, platforms, asking ------------------------------------------------------------------------------------


def test_a_new_key_signs_and_the_one_before_stays_published(tmp_path: Path) -> None:
    keys = ToolKeys(tmp_path)
    before = jwt.get_unverified_header(keys.sign({"a": 1}))["kid"]
    keys.renew(datetime(2040, 1, 1, tzinfo=UTC))
    token = keys.sign({"a": 2})
    public = {one["kid"]: one for one in keys.public()["keys"]}
    assert jwt.get_unverified_header(token)["kid"] != before and set(public) >= {before}
    key = jwt.PyJWK(public[jwt.get_unverified_header(token)["kid"]]).key
    assert jwt.decode(token, key, ["RS256"]) == {"a": 2}
    assert all("d" not in one for one in public.values()), "nothing private is published"
    modes = {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "keys").glob("lti-*.pem")}
    assert modes == {"0o600"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"login": "http://campus.example/"}, {"keys": "ftp://campus.example/"}, {"tool": "lesson.example"},
        {"token": "https://campus.example/a b"}, {"issuer": ""}, {"client": "x" * 300}, {"deployments": ()},
        {"deployments": ("",)}, {"login": "https://[::1/"},
    ],
)  # fmt: skip
def test_a_platform_of_unsafe_addresses_is_not_registered(
    world: World, platform: TestPlatform, wrong: dict[str, Any]
) -> None:
    with pytest.raises(LessonError):
        Platforms(world.site.store).add(**{**platform.registration, **wrong})


def test_a_platform_that_is_registered_again_keeps_its_courses_and_one_that_is_forgotten_does_not(
    world: World, platform: TestPlatform
) -> None:
    arrive(world, platform)
    known = Platforms(world.site.store)
    (one,) = known.all()
    changed = known.add(**{**platform.registration, "deployments": ("7", "8")})
    assert changed.id == one.id and known.links(world.site.classes.named(None).id)
    world.site.classes.remove(world.site.classes.named(None).id)
    assert not known.link(one, "7/course-1"), "a class that is erased takes its courses along"
    assert arrive(world, platform).status_code == 200
    known.remove(one.id)
    assert known.all() == [] and known.link(one, "7/course-1") is None


def test_an_answer_is_bounded_and_sends_us_nowhere(
    platform: TestPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "LARGEST", 10)
    with pytest.raises(LessonError, match="more than 10 bytes"):
        asking.ask(f"{platform.address}/keys?token=secret")
    platform.broken = 302
    with pytest.raises(LessonError, match="answered 302") as raised:
        asking.ask(f"{platform.address}/keys?token=secret")
    assert "secret" not in str(raised.value)
    with pytest.raises(LessonError):
        asking.ask("http://127.0.0.1:1/")


@contextmanager
def saying(*pieces: bytes, pause: float = 0.0) -> Iterator[str]:
    """The address of a server that answers one question with these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            asker, _ = listener.accept()
            with asker, suppress(OSError):
                asker.recv(65_536)
                for piece in pieces:
                    asker.sendall(piece)
                    time.sleep(pause)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        thread.join()


@pytest.mark.parametrize(
    "said",
    [
        b"What?\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nff\r\nfew",
        b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nfew",
        b"",
    ],
)
def test_an_answer_that_is_no_http_is_a_plain_error(said: bytes) -> None:
    with saying(said) as address, pytest.raises(LessonError):
        asking.ask(address)


def test_an_answer_that_drips_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SECONDS", 0.3)
    for status in (b"200 OK", b"400 No"):
        start = b"HTTP/1.1 " + status + b"\r\ncontent-length: 40\r\n\r\n"
        began = time.monotonic()
        with saying(start, *[b"x"] * 20, pause=0.1) as address:
            with pytest.raises(LessonError):
                asking.ask(address)
            assert time.monotonic() - began < 1.5


@pytest.mark.parametrize("port", ["abc", "99999"])
def test_an_address_whose_port_is_none_is_not_safe(port: str) -> None:
    assert not asking.is_safe(f"https://h:{port}/") and asking.is_safe("https://h:443/")
    with pytest.raises(LessonError):
        asking.ask(f"https://h:{port}/")


def test_logins_that_nobody_ends_are_dropped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lti_launches, "MOST_PENDING", 3)
    logins, (known,) = lti_launches.Logins(), Platforms(world.site.store).all()
    begun = [logins.begin(known, now=world.clock.now) for _ in range(5)]
    with pytest.raises(lti.LaunchRefused, match="already"):
        logins.end(begun[0].state, begun[0].browser, now=world.clock.now)
    assert logins.end(begun[-1].state, begun[-1].browser, now=world.clock.now).nonce == begun[-1].nonce
