"""Badges: who gets one, that it verifies offline, and that any changed byte shows."""

from __future__ import annotations

import base64
import json
import os
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.errors import LessonError
from headstart.lessons import attempts, badges, pictures
from headstart.lessons.attempts import Challenge, Opened, Submitted
from headstart.lessons.badges import BadgeError, Issuer
from lesson_packs import secret_pack

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PACK = secret_pack()
ISSUER = Issuer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
RESULTS = {"one-pass": {"ratio": 3.5, "machine": "two cores"}}


def finished(right: int = 5) -> Challenge:
    state, _ = attempts.step(None, attempts.begin(PACK, challenge="c", learner="ada", seed="s"), NOW)
    for number, item in enumerate(state.items):
        wrong = [identity for identity, _ in item.layout.options if identity != item.layout.answer]
        state, _ = attempts.step(state, Opened(item.problem), NOW)
        for answer in [item.layout.answer] if number < right else wrong[:2]:
            state, _ = attempts.step(state, Submitted(item.problem, answer, answer), NOW)
    return state


def issue(**options: object) -> str:
    return badges.issue(finished(), PACK, name="Ada", issuer=ISSUER, results=RESULTS, **options)  # type: ignore[arg-type]


def decoded(part: str) -> dict[str, object]:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))  # type: ignore[no-any-return]


def signed(header: dict[str, object], payload: dict[str, object], key: Ed25519PrivateKey = ISSUER.key) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in (header, payload)
    ]
    signature = key.sign(".".join(parts).encode())
    return ".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()])


def test_five_correct_earn_a_badge_that_verifies_offline() -> None:
    verified = badges.verify(issue(), now=NOW, trusted=[ISSUER.id])
    assert (verified.name, verified.holder, verified.issued_at) == ("Keeper of Secrets", "Ada", NOW)
    assert verified.trusted and not badges.verify(issue(), now=NOW).trusted


@pytest.mark.parametrize("right", range(5))
def test_fewer_than_five_correct_earn_none(right: int) -> None:
    with pytest.raises(LessonError, match=f"this challenge has {right}"):
        badges.issue(finished(right), PACK, name="Ada", issuer=ISSUER)


def test_the_credential_has_the_shape_of_open_badges_3() -> None:
    header, payload, _ = issue().split(".")
    assert decoded(header) == {"alg": "EdDSA", "jwk": ISSUER.jwk, "typ": "JWT"}
    credential = decoded(payload)
    assert credential["@context"][0] == "https://www.w3.org/ns/credentials/v2"  # type: ignore[index]
    assert credential["type"] == ["VerifiableCredential", "OpenBadgeCredential"]
    assert credential["iss"] == credential["issuer"]["id"] == ISSUER.id  # type: ignore[index]
    assert credential["sub"] == credential["credentialSubject"]["id"]  # type: ignore[index]
    assert credential["jti"] == credential["id"] and credential["nbf"] == NOW.timestamp()
    assert credential["validFrom"] == "2030-01-01T00:00:00Z"
    assert decoded(ISSUER.id.removeprefix("did:jwk:")) == ISSUER.jwk


def test_attempts_and_experiments_are_its_evidence_and_secrets_are_not() -> None:
    credential = badges.verify(issue(), now=NOW).credential
    genres = [evidence["genre"] for evidence in credential["evidence"]]
    assert genres == ["Attempt"] * 5 + ["Experiment"]
    assert "ratio: 3.5; machine: two cores" in credential["evidence"][-1]["narrative"]
    assert "secretkey" not in json.dumps(credential) and "SECRET" not in json.dumps(credential)


def test_the_same_challenge_gives_the_same_badge() -> None:
    assert issue() == issue()


def test_no_changed_character_goes_unnoticed() -> None:
    text = issue()
    for place, letter in enumerate(text):
        other = "A" if letter != "A" else "B"
        with pytest.raises(BadgeError):
            badges.verify(text[:place] + other + text[place + 1 :], now=NOW)


@given(st.data())
@settings(deadline=None, max_examples=200)
def test_no_changed_byte_of_the_signature_goes_unnoticed(data: st.DataObject) -> None:
    text = issue()
    place = data.draw(st.integers(text.rindex(".") + 1, len(text) - 1))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = data.draw(st.sampled_from([letter for letter in alphabet if letter != text[place]]))
    with pytest.raises(BadgeError):
        badges.verify(text[:place] + other + text[place + 1 :], now=NOW)


def test_a_badge_cannot_choose_its_own_algorithm_or_key() -> None:
    header, payload = (decoded(part) for part in issue().split(".")[:2])
    stranger = Issuer(Ed25519PrivateKey.generate())
    for forged in (
        signed({**header, "alg": "none"}, payload),
        signed({**header, "alg": "HS256"}, payload),
        signed({**header, "jwk": {**ISSUER.jwk, "kty": "oct"}}, payload),
        signed({**header, "jwk": {**ISSUER.jwk, "x": "AA"}}, payload),
        signed({**header, "jwk": stranger.jwk}, payload, stranger.key),
        signed(header, {**payload, "sub": "urn:uuid:someone-else"}),
        signed(header, {**payload, "nbf": 1}),
        signed(header, {**payload, "type": ["VerifiableCredential"]}),
        signed(header, {"iss": ISSUER.id}),
        signed(header, {**payload, "issuer": "text"}),
        "a.b",
        "",
        "é.é.é",
    ):
        with pytest.raises(BadgeError):
            badges.verify(forged, now=NOW)
    badges.verify(signed(header, payload), now=NOW)


def test_a_badge_from_the_future_is_refused() -> None:
    with pytest.raises(BadgeError, match="future"):
        badges.verify(issue(), now=NOW - timedelta(hours=1))


def test_a_name_cannot_break_the_badge() -> None:
    text = badges.issue(finished(), PACK, name=' <b>&"Ada"\x00\n' + "x" * 500, issuer=ISSUER)
    holder = badges.verify(text, now=NOW).holder
    assert holder.startswith('<b>&"Ada" xxx') and len(holder) == 80
    assert "&lt;b&gt;" in pictures.draw_svg("Title", holder)
    ET.fromstring(pictures.bake_svg(pictures.draw_svg("Title", holder), text))


# The key


def test_the_key_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        issuers = list(pool.map(lambda _: badges.load_issuer(tmp_path).id, range(16)))
    assert len(set(issuers)) == 1
    folder = tmp_path / "keys"
    assert [path.name for path in folder.iterdir()] == ["badge-issuer.pem"]
    assert (folder / "badge-issuer.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    badges.load_issuer(tmp_path)
    path = tmp_path / badges.KEY_FILE
    path.chmod(0o644)
    with pytest.raises(LessonError, match="chmod 600"):
        badges.load_issuer(tmp_path)
    path.chmod(0o600)
    path.write_text("no key")
    with pytest.raises(LessonError, match="no usable key"):
        badges.load_issuer(tmp_path)


# Pictures


@pytest.fixture(scope="module")
def png() -> bytes:
    return pictures.draw_png("Pre-trained Model Master", "Ada")


def test_a_png_carries_the_credential_and_still_shows(png: bytes) -> None:
    baked = pictures.bake_png(png, issue())
    assert pictures.extract(baked) == issue()
    with Image.open(BytesIO(baked)) as image, Image.open(BytesIO(png)) as plain:
        assert image.size == (512, 512) and image.tobytes() == plain.tobytes()
        assert image.text["openbadgecredential"] == issue()  # type: ignore[attr-defined]


def test_an_svg_carries_the_credential_and_stays_well_formed() -> None:
    baked = pictures.bake_svg(pictures.draw_svg("Master & Commander", "Ada"), issue())
    assert pictures.extract(baked.encode()) == issue()
    element = ET.fromstring(baked)[0]
    assert element.tag == f"{{{pictures.NAMESPACE}}}credential" and element.get("verify") == issue()


def test_baking_again_replaces_the_credential(png: bytes) -> None:
    assert pictures.extract(pictures.bake_png(pictures.bake_png(png, "a.b.c"), "d.e.f")) == "d.e.f"
    svg = pictures.draw_svg("Title", "Ada")
    assert pictures.extract(pictures.bake_svg(pictures.bake_svg(svg, "a.b.c"), "d.e.f").encode()) == "d.e.f"


def test_a_changed_byte_in_a_picture_fails(png: bytes) -> None:
    baked = pictures.bake_png(png, issue())
    for place in range(0, len(baked), 97):
        changed = baked[:place] + bytes([baked[place] ^ 1]) + baked[place + 1 :]
        with pytest.raises(BadgeError):
            badges.verify(pictures.extract(changed), now=NOW)
    svg = pictures.bake_svg(pictures.draw_svg("Title", "Ada"), issue())
    with pytest.raises(BadgeError):
        badges.verify(pictures.extract(svg.replace('verify="e', 'verify="f').encode()), now=NOW)


def test_files_without_a_credential_are_refused(png: bytes) -> None:
    twice = pictures.bake_svg(pictures.draw_svg("Title", "Ada"), "a.b.c").replace(
        "<polygon", '<openbadges:credential verify="d.e.f"/><polygon', 1
    )
    for data in (png, b"\xff\xfe\x00", png[:100], b"<svg></svg>", twice.encode(), b"x" * 10_000_001):
        with pytest.raises(BadgeError):
            pictures.extract(data)
    with pytest.raises(BadgeError):
        pictures.bake_png(b"no picture", "a.b.c")
    with pytest.raises(BadgeError):
        pictures.bake_svg("no picture", "a.b.c")
    assert pictures.extract(issue().encode() + b"\n") == issue()
