"""Badges: who gets one, that it verifies offline, and that any changed byte shows."""

from __future__ import annotations

import base64
import json
import os
import struct
import time
import xml.etree.ElementTree as ET
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.cli import cli
from headstart.errors import LessonError
from headstart.lesson.engine import attempts, badges
from headstart.lesson.engine import badge_images as pictures
from headstart.lesson.engine.attempts import Challenge
from headstart.lesson.engine.badges import BadgeError, Issuer
from lesson_packs import secret_pack, taken

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PACK = secret_pack()
ISSUER = Issuer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
RESULTS = {
    "one-pass": SimpleNamespace(
        fields={"ratio": 3.5, "images": 208},
        machine={"cores": "two"},
        data="digits",
        seed=7,
        size="normal",
        parameters={"epochs": 3},
        varied=("epochs",),
    )
}


def finished(right: int = 5, *, now: datetime = NOW) -> Challenge:
    return taken("ada", "r" * right + "w" * (5 - right), pack=PACK, now=now)


def issue(**options: object) -> str:
    return badges.issue(finished(), PACK, name="Ada", issuer=ISSUER, results=RESULTS, **options)  # type: ignore[arg-type]


def decoded(part: str) -> dict[str, object]:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))  # type: ignore[no-any-return]


def signed(header: dict[str, object], payload: dict[str, object], key: Ed25519PrivateKey = ISSUER.key) -> str:
    return signed_bytes(json.dumps(header), json.dumps(payload), key)


def signed_bytes(header: str, payload: str, key: Ed25519PrivateKey) -> str:
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in (header, payload)]
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
    assert ISSUER.id.startswith("did:key:z6Mk"), "Ed25519 in base 58"


def test_attempts_and_experiments_are_its_evidence_and_secrets_are_not() -> None:
    credential = badges.verify(issue(), now=NOW).credential
    genres = [evidence["genre"] for evidence in credential["evidence"]]
    assert genres == ["Circumstances"] + ["Attempt"] * 5 + ["Experiment"]
    said = credential["evidence"][-1]["narrative"]
    assert "ratio: 3.5; images: 208; machine: two; data: digits; seed: 7; size: normal" in said
    assert "set to another value, epochs: 3" in said
    assert "secretkey" not in json.dumps(credential) and "SECRET" not in json.dumps(credential)


def test_a_badge_says_how_often_it_was_tried_and_how_the_clock_was_set() -> None:
    before = NOW - timedelta(days=1)
    earlier = [
        taken("ada", "rw---", pack=PACK, now=before),
        replace(taken("ada", "rrrrr", pack=PACK, now=before), pack="another lesson"),
        replace(taken("bob", "rrrrr", pack=PACK, now=before), id="bob's"),
        replace(taken("ada", "wwwww", pack=PACK, now=NOW + timedelta(days=1)), id="later"),
    ]
    gave_up = earlier[0]
    for item in gave_up.items[2:]:
        gave_up, _ = attempts.step(gave_up, attempts.Closed(item.problem), before)
    told = badges.verify(issue(earlier=[gave_up, *earlier[1:]]), now=NOW).circumstances
    assert told.startswith("Challenge number 2 of this lesson; all of its 5 problems had been asked")
    assert "1 right, 1 wrong, 3 given up" in told and "The clock ran as set by the lesson. " in told
    assert badges.verify(issue(), now=NOW).circumstances.startswith("The first challenge of this lesson.")
    for timer, says in ((None, "switched off"), (3.0, "stretched 3 times")):
        text = badges.issue(replace(finished(), timer=timer), PACK, name="Ada", issuer=ISSUER)
        assert says in badges.verify(text, now=NOW).circumstances


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
        signed({**header, "jwk": {**ISSUER.jwk, "x": 7}}, payload),
        signed({**header, "jwk": {**ISSUER.jwk, "x": f"{ISSUER.jwk['x']}="}}, payload),
        signed({**header, "crit": ["exp"]}, payload),
        signed({**header, "b64": False, "crit": ["b64"]}, payload),
        f"{issue()}=",
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


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(png: bytes, kind: bytes, data: bytes) -> bytes:
    """A chunk behind the header, which takes 33 bytes."""
    return png[:33] + png_chunk(kind, data) + png[33:]


def test_a_credential_that_other_tools_moved_behind_the_pixels_is_found(png: bytes) -> None:
    end = png_chunk(b"IEND", b"")
    text = png_chunk(b"iTXt", b"openbadgecredential\0\0\0\0\0a.b.c")
    assert pictures.extract(png.removesuffix(end) + text + end) == "a.b.c"


def test_pictures_of_several_odd_or_huge_credentials_or_pixels_are_refused_in_a_line(png: bytes) -> None:
    keyword, packed = b"openbadgecredential\0", b"openbadgecredential\0\1\0\0\0"
    baked = pictures.bake_png(png, "a.b.c")
    huge = png[:16] + struct.pack(">II", 60_000, 60_000) + png[24:29]
    for picture, reason in (
        (with_chunk(baked, b"iTXt", keyword + b"\0\0\0\0d.e.f"), "exactly one"),
        (with_chunk(baked, b"tEXt", keyword + b"d.e.f"), "exactly one"),
        (with_chunk(png, b"tEXt", keyword + b"d.e.f"), "iTXt"),
        (with_chunk(png, b"iTXt", packed + zlib.compress(b"d.e.f")), "uncompressed"),
        (with_chunk(png, b"iTXt", packed + zlib.compress(b" " * 4_000_000)), "uncompressed|damaged"),
        (huge + struct.pack(">I", zlib.crc32(huge[12:])) + png[33:], "4096 pixels"),
        (baked[:-20], "cut off"),
        (baked[:-1], "cut off"),
    ):
        with pytest.raises(BadgeError, match=reason) as refused:
            pictures.extract(picture)
        assert "\n" not in str(refused.value)


# What others make of it ------------------------------------------------------------------------------------

PAST = datetime(2024, 1, 1, tzinfo=UTC)
"""Other verifiers look at the true clock."""


def issued_in_the_past() -> str:
    return badges.issue(finished(now=PAST), PACK, name="Ada", issuer=ISSUER, results=RESULTS)


def test_another_implementation_of_open_badges_verifies_the_badge_and_finds_it_in_both_pictures() -> None:
    verifier = pytest.importorskip("openbadgeslib.ob3", reason="needs openbadgeslib").OB3Verifier
    badge = issued_in_the_past()
    png = pictures.bake_png(pictures.draw_png("Title", "Ada"), badge)
    svg = pictures.bake_svg(pictures.draw_svg("Title", "Ada"), badge)
    assert verifier.extract_token_from_png(png) == badge
    assert verifier.extract_token_from_svg(svg.encode()) == badge
    # The issuer's id alone is enough to find the key; nothing is fetched.
    theirs = verifier.for_issuer_did(ISSUER.id).verify(badge)
    assert theirs.issuer.id == ISSUER.id and theirs.achievement.name == PACK.badge.title
    other = Issuer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
    with pytest.raises(Exception, match=r"does not match|Invalid signature"):
        verifier.for_issuer_did(other.id).verify(badge)
    head, body, signature = badge.split(".")
    changed = decoded(body)
    changed["name"] = "Emperor"
    forged = base64.urlsafe_b64encode(json.dumps(changed).encode()).rstrip(b"=").decode()
    with pytest.raises(Exception, match="Invalid signature"):
        verifier.for_issuer_did(ISSUER.id).verify(f"{head}.{forged}.{signature}")


def test_pyjwt_checks_the_signature_with_the_key_in_the_header() -> None:
    jwt = pytest.importorskip("jwt", reason="needs PyJWT")
    badge = issued_in_the_past()
    header = jwt.get_unverified_header(badge)
    assert header["typ"] == "JWT" and header["alg"] == "EdDSA"
    claims = jwt.decode(badge, jwt.PyJWK(header["jwk"]).key, algorithms=["EdDSA"])
    assert claims["iss"] == claims["issuer"]["id"] and claims["jti"] == claims["id"]
    assert claims["sub"] == claims["credentialSubject"]["id"]
    assert claims["nbf"] == int(datetime.fromisoformat(claims["validFrom"]).timestamp())
    assert "vc" not in claims, "version 3.0 puts the credential's properties beside the claims"


def _of(kind: str, **more: object) -> dict[str, object]:
    """A property `type` that names this kind, alone or in a list, and further properties."""
    kinds = {"anyOf": [{"const": kind}, {"type": "array", "contains": {"const": kind}}]}
    return {"type": "object", "required": ["type", *more], "properties": {"type": kinds, **more}}


_TEXT, _MOMENT, _PLACE = (
    {"type": "string"},
    {"type": "string", "format": "date-time"},
    {"pattern": "^[a-z]+:"},
)
_ACHIEVEMENT = _of("Achievement", id=_PLACE, name=_TEXT, description=_TEXT, criteria={"type": "object"})
_SUBJECT = _of(
    "AchievementSubject",
    achievement=_ACHIEVEMENT,
    identifier={
        "type": "array",
        "items": {
            "required": ["type", "hashed", "identityHash", "identityType"],
            "properties": {
                "type": {"const": "IdentityObject"},
                "hashed": {"type": "boolean"},
                "identityHash": _TEXT,
                "identityType": {"enum": ["name", "emailAddress", "identifier", "userName"]},
            },
        },
    },
    result={"type": "array", "items": _of("Result", resultDescription=_PLACE, value=_TEXT)},
)
CREDENTIAL = {
    "$schema": "https://json-schema.org/draft/2019-09/schema",
    "type": "object",
    "required": ["@context", "id", "type", "name", "issuer", "validFrom", "credentialSubject"],
    "properties": {
        "@context": {
            "type": "array",
            "prefixItems": [{"const": "https://www.w3.org/ns/credentials/v2"}],
            "contains": {"pattern": r"^https://purl\.imsglobal\.org/spec/ob/v3p0/context-3\.0\.\d\.json$"},
        },
        "id": _PLACE,
        "type": {
            "type": "array",
            "allOf": [
                {"contains": {"const": "VerifiableCredential"}},
                {"contains": {"enum": ["AchievementCredential", "OpenBadgeCredential"]}},
            ],
        },
        "name": _TEXT,
        "issuer": _of("Profile", id=_PLACE, name=_TEXT),
        "validFrom": _MOMENT,
        "credentialSubject": _SUBJECT,
        "evidence": {"type": "array", "items": _of("Evidence", name=_TEXT, narrative=_TEXT, genre=_TEXT)},
    },
}
"""The rules of an AchievementCredential (Open Badges 3.0, appendix "Data models"), as far as ours goes."""


def test_the_credential_keeps_the_rules_of_an_achievement_credential() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    credential = decoded(issue().split(".")[1])
    check = jsonschema.Draft202012Validator(CREDENTIAL)
    assert [error.message for error in check.iter_errors(credential)] == []
    for missing in ("issuer", "validFrom", "credentialSubject"):
        assert list(check.iter_errors({key: value for key, value in credential.items() if key != missing}))
    described = credential["credentialSubject"]["achievement"]["resultDescription"][0]  # type: ignore[index]
    assert described["resultType"] == "RawScore" and {"id", "type", "name"} <= set(described)


def test_every_word_of_the_credential_is_defined_by_its_contexts() -> None:
    library = pytest.importorskip("openbadgeslib", reason="needs openbadgeslib, which carries the contexts")
    folder = Path(library.__file__).parent / "ob3" / "contexts"
    known = {"@context", "id", "type", "iss", "jti", "nbf", "sub"}

    def words(value: object) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(words, value))
        return set(value).union(*map(words, value.values())) if isinstance(value, dict) else set()

    for name in ("credentials-v2.json", "ob-v3p0-context-3.0.3.json"):
        known |= words(json.loads((folder / name).read_text()))
    assert words(decoded(issue().split(".")[1])) - known == set()


def signed_text(payload: str) -> str:
    """A badge whose signature is right, whatever it says."""
    return signed_bytes(json.dumps({"alg": "EdDSA", "jwk": ISSUER.jwk, "typ": "JWT"}), payload, ISSUER.key)


def changed(**fields: object) -> str:
    return signed_text(json.dumps(decoded(issue().split(".")[1]) | fields))


@pytest.mark.parametrize(
    "badge",
    [
        signed_text("[" * 100_000),
        signed_text('{"a":' * 100_000),
        signed_text("NaN"),
        changed(validFrom="2024-01-01T00:00:00"),
        changed(validFrom="0001-01-01T00:00:00+14:00"),
        changed(validFrom=float("inf")),
        changed(evidence=[float("nan")]),
        changed(issuer={"id": ["a", "list"]}, iss=["a", "list"]),
        changed(issuer=["id"]),
        changed(credentialSubject=None),
        changed(type=[["VerifiableCredential"]]),
    ],
)
def test_a_signed_badge_of_odd_values_is_refused_in_a_line(badge: str) -> None:
    with pytest.raises(BadgeError) as refused:
        badges.verify(badge, now=NOW)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("piece", ["<openbadges:credential ", "<svg>", '<a verify="'])
def test_pictures_that_were_made_to_cost_are_refused_soon(piece: str) -> None:
    begun = time.process_time()
    with pytest.raises(BadgeError):
        pictures.extract(20_000 * piece.encode())
    assert time.process_time() - begun < 5, "quadratic time would be minutes"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_verify_reads_regular_files_alone_and_prints_no_escapes(
    tmp_path: Path, private_folders: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused = CliRunner().invoke(cli, ["badge", "verify", str(tmp_path / "pipe")])
    assert isinstance(refused.exception, BadgeError) and "not a regular file" in str(refused.exception)
    claims = decoded(issued_in_the_past().split(".")[1])
    claims["credentialSubject"]["identifier"][0]["identityHash"] = "Ada\x1b[31m\nvalid: all"  # type: ignore[index]
    claims["evidence"][0]["narrative"] = "\x1b[2J\nvalid: this installation"  # type: ignore[index]
    (tmp_path / "odd.jwt").write_text(signed_text(json.dumps(claims)))
    shown = CliRunner().invoke(cli, ["badge", "verify", str(tmp_path / "odd.jwt")])
    assert "Ada\\x1b[31m\\nvalid: all" in shown.stdout and shown.stdout.count("\n") == 2
    assert shown.stdout.splitlines()[1] == "it says: \\x1b[2J\\nvalid: this installation"


def test_a_badge_of_the_first_release_still_verifies() -> None:
    verified = badges.verify(OLD_BADGE, now=NOW, trusted=[ISSUER.id])
    assert verified.holder == "Ada" and verified.trusted and verified.issuer.startswith("did:jwk:")


OLD_BADGE = (
    "eyJhbGciOiJFZERTQSIsImp3ayI6eyJjcnYiOiJFZDI1NTE5Iiwia3R5IjoiT0tQIiwieCI6IkE2RUh2X1BPRUw0ZGNOMFk1MH"
    "ZBbVdmazFqQ2JwUTFmSGR5R1pCSlZNYmcifSwidHlwIjoiSldUIn0.eyJAY29udGV4dCI6WyJodHRwczovL3d3dy53My5vcmcv"
    "bnMvY3JlZGVudGlhbHMvdjIiLCJodHRwczovL3B1cmwuaW1zZ2xvYmFsLm9yZy9zcGVjL29iL3YzcDAvY29udGV4dC0zLjAuMy"
    "5qc29uIl0sImlkIjoidXJuOnV1aWQ6ZTNkYmU2YmMtMjIzMi01MjQ1LThiZjItYjE2ZWY0MzRlN2I1IiwidHlwZSI6WyJWZXJp"
    "ZmlhYmxlQ3JlZGVudGlhbCIsIk9wZW5CYWRnZUNyZWRlbnRpYWwiXSwibmFtZSI6IktlZXBlciBvZiBTZWNyZXRzIiwiaXNzdW"
    "VyIjp7ImlkIjoiZGlkOmp3azpleUpqY25ZaU9pSkZaREkxTlRFNUlpd2lhM1I1SWpvaVQwdFFJaXdpZUNJNklrRTJSVWgyWDFC"
    "UFJVdzBaR05PTUZrMU1IWkJiVmRtYXpGcVEySndVVEZtU0dSNVIxcENTbFpOWW1jaWZRIiwidHlwZSI6WyJQcm9maWxlIl0sIm"
    "5hbWUiOiJIZWFkc3RhcnQifSwidmFsaWRGcm9tIjoiMjAyNC0wMS0wMVQwMDowMDowMFoiLCJjcmVkZW50aWFsU3ViamVjdCI6"
    "eyJpZCI6InVybjp1dWlkOmVjOTlkYzQ0LTNmNjItNTM5My05NDcyLWRlN2E3M2VjZDVmZCIsInR5cGUiOlsiQWNoaWV2ZW1lbn"
    "RTdWJqZWN0Il0sImlkZW50aWZpZXIiOlt7InR5cGUiOiJJZGVudGl0eU9iamVjdCIsImhhc2hlZCI6ZmFsc2UsImlkZW50aXR5"
    "SGFzaCI6IkFkYSIsImlkZW50aXR5VHlwZSI6Im5hbWUifV0sImFjaGlldmVtZW50Ijp7ImlkIjoidXJuOnV1aWQ6M2Y4OGU3OT"
    "QtOTMyYS01YjY1LWJmYjctMzMyNDJiOGEzOTcwIiwidHlwZSI6WyJBY2hpZXZlbWVudCJdLCJhY2hpZXZlbWVudFR5cGUiOiJC"
    "YWRnZSIsIm5hbWUiOiJLZWVwZXIgb2YgU2VjcmV0cyIsImRlc2NyaXB0aW9uIjoiS2VwdCBmaXZlIHNlY3JldHMuIiwiY3JpdG"
    "VyaWEiOnsibmFycmF0aXZlIjoiQWxsIGZpdmUgY29ycmVjdC4ifSwicmVzdWx0RGVzY3JpcHRpb24iOlt7ImlkIjoidXJuOnV1"
    "aWQ6M2Y4OGU3OTQtOTMyYS01YjY1LWJmYjctMzMyNDJiOGEzOTcwI3BvaW50cyIsInR5cGUiOlsiUmVzdWx0RGVzY3JpcHRpb2"
    "4iXSwibmFtZSI6IlBvaW50cyIsInJlc3VsdFR5cGUiOiJSYXdTY29yZSIsInZhbHVlTWluIjoiMCIsInZhbHVlTWF4IjoiNTAw"
    "In1dfSwicmVzdWx0IjpbeyJ0eXBlIjpbIlJlc3VsdCJdLCJyZXN1bHREZXNjcmlwdGlvbiI6InVybjp1dWlkOjNmODhlNzk0LT"
    "kzMmEtNWI2NS1iZmI3LTMzMjQyYjhhMzk3MCNwb2ludHMiLCJ2YWx1ZSI6IjUwMCJ9XX0sImV2aWRlbmNlIjpbeyJ0eXBlIjpb"
    "IkV2aWRlbmNlIl0sIm5hbWUiOiJUaXRsZSAwIiwiZ2VucmUiOiJBdHRlbXB0IiwibmFycmF0aXZlIjoiQ29ycmVjdCBhdCB0aG"
    "UgZmlyc3QgYXR0ZW1wdCwgd2l0aG91dCBhIGhpbnQ7IDEwMCBwb2ludHMuIn0seyJ0eXBlIjpbIkV2aWRlbmNlIl0sIm5hbWUi"
    "OiJUaXRsZSAxIiwiZ2VucmUiOiJBdHRlbXB0IiwibmFycmF0aXZlIjoiQ29ycmVjdCBhdCB0aGUgZmlyc3QgYXR0ZW1wdCwgd2"
    "l0aG91dCBhIGhpbnQ7IDEwMCBwb2ludHMuIn0seyJ0eXBlIjpbIkV2aWRlbmNlIl0sIm5hbWUiOiJUaXRsZSAyIiwiZ2VucmUi"
    "OiJBdHRlbXB0IiwibmFycmF0aXZlIjoiQ29ycmVjdCBhdCB0aGUgZmlyc3QgYXR0ZW1wdCwgd2l0aG91dCBhIGhpbnQ7IDEwMC"
    "Bwb2ludHMuIn0seyJ0eXBlIjpbIkV2aWRlbmNlIl0sIm5hbWUiOiJUaXRsZSAzIiwiZ2VucmUiOiJBdHRlbXB0IiwibmFycmF0"
    "aXZlIjoiQ29ycmVjdCBhdCB0aGUgZmlyc3QgYXR0ZW1wdCwgd2l0aG91dCBhIGhpbnQ7IDEwMCBwb2ludHMuIn0seyJ0eXBlIj"
    "pbIkV2aWRlbmNlIl0sIm5hbWUiOiJUaXRsZSA0IiwiZ2VucmUiOiJBdHRlbXB0IiwibmFycmF0aXZlIjoiQ29ycmVjdCBhdCB0"
    "aGUgZmlyc3QgYXR0ZW1wdCwgd2l0aG91dCBhIGhpbnQ7IDEwMCBwb2ludHMuIn0seyJ0eXBlIjpbIkV2aWRlbmNlIl0sIm5hbW"
    "UiOiJvbmUtcGFzcyIsImdlbnJlIjoiRXhwZXJpbWVudCIsImRlc2NyaXB0aW9uIjoic2hvd3MiLCJuYXJyYXRpdmUiOiJNZWFz"
    "dXJlZCBvbiB0aGUgbGVhcm5lcidzIG1hY2hpbmUuIHJhdGlvOiAzLjU7IG1hY2hpbmU6IHR3byBjb3JlcyJ9XSwiaXNzIjoiZG"
    "lkOmp3azpleUpqY25ZaU9pSkZaREkxTlRFNUlpd2lhM1I1SWpvaVQwdFFJaXdpZUNJNklrRTJSVWgyWDFCUFJVdzBaR05PTUZr"
    "MU1IWkJiVmRtYXpGcVEySndVVEZtU0dSNVIxcENTbFpOWW1jaWZRIiwianRpIjoidXJuOnV1aWQ6ZTNkYmU2YmMtMjIzMi01Mj"
    "Q1LThiZjItYjE2ZWY0MzRlN2I1IiwibmJmIjoxNzA0MDY3MjAwLCJzdWIiOiJ1cm46dXVpZDplYzk5ZGM0NC0zZjYyLTUzOTMt"
    "OTQ3Mi1kZTdhNzNlY2Q1ZmQifQ.4I29zXMk6zdliBiA8eGrQaPxYhic5-KGc0qdBELukbZTP5PNho4ldFXRMDbA9liGyH9DTlV"
    "roblOZAKH8zR7Dg"
)
"""Issued by version 0.1.0 with this file's key."""
