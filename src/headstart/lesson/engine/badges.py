"""Badges: Open Badges 3.0 credentials, signed here and verified anywhere, offline.

The proof is a VC-JWT, one of the two formats of Open Badges 3.0 (https://www.imsglobal.org/spec/ob/v3p0/,
"JSON Web Token Proof Format"), with `alg` EdDSA over Ed25519 and the public key in the header. The other
format, an embedded proof, would have to use `eddsa-rdfc-2022`, whose canonical form needs the JSON-LD
contexts and an RDF library; `eddsa-jcs-2022` is not among the proofs that Open Badges certifies. The
specification asks every verifier for RS256 and permits EdDSA, so a verifier that knows RSA alone cannot check
our badges.

The issuer is this installation: its id is a ``did:key``, which is the public key, and which other verifiers
of Open Badges resolve without a network. (The first badges had the less known ``did:jwk``; they stay valid.)
A valid badge says "unchanged since this key signed it"; whether the key deserves trust is for the reader to
decide.
"""

from __future__ import annotations

import base64
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import LessonError, MissingExtra, printable
from headstart.files import Unreadable, make, parse_json, write_new
from headstart.lesson.engine import scores
from headstart.lesson.engine.attempts import Challenge, problem_of
from headstart.lesson.engine.pack import Pack
from headstart.lesson.engine.results import ExperimentResult

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from headstart.lesson.engine.progress import Progress

CONTEXTS = (
    "https://www.w3.org/ns/credentials/v2",
    "https://purl.imsglobal.org/spec/ob/v3p0/context-3.0.3.json",
)
TYPES = ("VerifiableCredential", "OpenBadgeCredential")
KEY_FILE = Path("keys", "badge-issuer.pem")
CLOCK_SKEW = timedelta(minutes=5)
"""How far ahead the issuer's clock may have been."""

ALGORITHM = "EdDSA"
_CIRCUMSTANCES = "Circumstances"
_COMPACT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}")
_ED25519 = b"\xed\x01"
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_NAMESPACE = uuid.UUID("0e1c3f0a-7f0e-5c43-9c0f-6f2a0c8f2f11")


class BadgeError(LessonError):
    """A badge is damaged, changed, or no badge."""


@dataclass(frozen=True)
class Verified:
    """What a valid badge says. `trusted` is whether its issuer is among those the caller trusts.

    `circumstances` is how the challenge was taken, or empty where an older badge does not say.
    """

    name: str
    holder: str
    issuer: str
    issued_at: datetime
    trusted: bool
    credential: Mapping[str, Any]
    circumstances: str = ""


# The issuer's key -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Issuer:
    """Who signs. `name` is shown; `id` follows from the key."""

    key: Ed25519PrivateKey
    name: str = "Headstart"

    @property
    def jwk(self) -> dict[str, str]:
        """The public key as a JSON Web Key (RFC 8037)."""
        return _jwk(self.key.public_key())

    @property
    def id(self) -> str:
        """The key as a ``did:key`` (https://w3c-ccg.github.io/did-key-spec/)."""
        return _did_key(self.key.public_key())


def load_issuer(home: Path, *, name: str = "Headstart") -> Issuer:
    """The installation's issuer; makes its key on first use.

    Args:
        home: HEADSTART_HOME. The key is `keys/badge-issuer.pem` below it, readable by its owner alone (0600).
        name: shown as the issuer's name.

    Raises:
        LessonError: the key file is unusable, or others may read it.
        MissingExtra: the `cryptography` package is not installed.
    """
    path = home / KEY_FILE
    serialization, ed25519 = _cryptography()
    if not path.exists():
        _create_key(path)
    if os.name == "posix" and path.stat().st_mode & 0o077:
        raise LessonError(f"{path}: others may read the badge key; run: chmod 600 {path}")
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise LessonError(
            f"{path} holds no usable key ({error}); move it away to have a new one made"
        ) from None
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise LessonError(f"{path}: expected an Ed25519 key, got {type(key).__name__}")
    return Issuer(key, name)


def _create_key(path: Path) -> None:
    """Writes a new key so that nobody ever sees half of it, and two processes agree on one."""
    serialization, ed25519 = _cryptography()
    make(path.parent)
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_new(path, pem, mode=0o600)


# Issuing --------------------------------------------------------------------------------------------------


def issue(
    challenge: Challenge,
    pack: Pack,
    *,
    name: str,
    issuer: Issuer,
    results: Mapping[str, ExperimentResult] | None = None,
    earlier: Sequence[Challenge] = (),
) -> str:
    """The badge of a challenge as a compact JWS, which is also what a `.jwt` file holds.

    The same challenge always gives the same credential: ids and times come from the challenge.

    Args:
        challenge: with all problems correct.
        pack: its lesson.
        name: the learner's name, as it shall stand on the badge.
        issuer: see `load_issuer`.
        results: experiments that have run, as evidence.
        earlier: what the learner had begun before, of any lesson; what counts of it is said on the badge.

    Raises LessonError where a problem is not correct, or the mode gives no badge.
    """
    finished = challenge.finished_at
    if not challenge.earns_badge or finished is None:
        raise LessonError(
            f"the badge needs all {len(challenge.items)} problems correct; this challenge has "
            f"{challenge.correct}"
        )
    credential = {
        "@context": list(CONTEXTS),
        "id": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'credential/{challenge.id}')}",
        "type": list(TYPES),
        "name": pack.badge.title,
        "issuer": {"id": issuer.id, "type": ["Profile"], "name": issuer.name},
        "validFrom": _timestamp(finished),
        "credentialSubject": _subject(challenge, pack, _printable(name)),
        "evidence": [
            _circumstances(challenge, earlier),
            *_attempt_evidence(challenge, pack),
            *_experiment_evidence(pack, results or {}),
        ],
    }
    payload = _json({**credential, **_claims(credential)})
    signed: str = _jwt().PyJWS().encode(payload, issuer.key, ALGORITHM, headers={"jwk": issuer.jwk})
    return signed


def _claims(credential: Mapping[str, Any]) -> dict[str, Any]:
    """What a JSON Web Token says beside a credential: the same, under its own names."""
    return {
        "iss": credential["issuer"]["id"],
        "jti": credential["id"],
        "nbf": int(datetime.fromisoformat(credential["validFrom"]).timestamp()),
        "sub": credential["credentialSubject"]["id"],
    }


def _printable(name: str) -> str:
    """A name fit for a badge: one line, no control characters, at most 80 characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in name).split())
    return line[:80] or "a learner"


def _subject(challenge: Challenge, pack: Pack, name: str) -> dict[str, Any]:
    score = scores.score(challenge)
    achievement = f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'achievement/{pack.slug}')}"
    points = f"{achievement}#points"
    return {
        "id": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'learner/{challenge.learner}')}",
        "type": ["AchievementSubject"],
        "identifier": [
            {"type": "IdentityObject", "hashed": False, "identityHash": name, "identityType": "name"},
        ],
        "achievement": {
            "id": achievement,
            "type": ["Achievement"],
            "achievementType": "Badge",
            "name": pack.badge.title,
            "description": pack.badge.description,
            "criteria": {"narrative": pack.badge.criteria},
            "resultDescription": [
                {
                    "id": points,
                    "type": ["ResultDescription"],
                    "name": "Points",
                    "resultType": "RawScore",
                    "valueMin": "0",
                    "valueMax": str(score.possible),
                }
            ],
        },
        "result": [{"type": ["Result"], "resultDescription": points, "value": str(score.points)}],
    }


def _circumstances(challenge: Challenge, earlier: Sequence[Challenge]) -> dict[str, Any]:
    """How often the learner had tried before, how the clock was set, and how long it took."""
    before = [
        each
        for each in earlier
        if (each.learner, each.pack, each.mode) == (challenge.learner, challenge.pack, challenge.mode)
        and each.id != challenge.id
        and each.started_at <= challenge.started_at
    ]
    said = [_before(before, challenge), _clock(challenge.timer)]
    for count, what in (
        (sum(item.extended for item in challenge.items), "had more time from the teacher"),
        (sum(item.reopened > 0 for item in challenge.items), "had been opened again by the teacher"),
    ):
        if count:
            said.append(f"{count} of its problems {what}.")
    if (finished := challenge.finished_at) is not None:
        minutes, seconds = divmod(round((finished - challenge.started_at).total_seconds()), 60)
        said.append(f"From its beginning to the last answer {minutes}:{seconds:02} passed.")
    return {
        "type": ["Evidence"],
        "name": "How it was taken",
        "genre": _CIRCUMSTANCES,
        "narrative": " ".join(said),
    }


def _circumstances_said(credential: Mapping[str, Any]) -> str:
    evidence = credential.get("evidence")
    found = [
        str(each.get("narrative", ""))
        for each in (evidence if isinstance(evidence, list) else ())
        if isinstance(each, dict) and each.get("genre") == _CIRCUMSTANCES
    ]
    return printable(found[0])[:500] if found else ""


def _before(challenges: Sequence[Challenge], now: Challenge) -> str:
    if not challenges:
        return "The first challenge of this lesson."
    items = [item for each in challenges for item in each.items if item.closed_at is not None]
    right = sum(item.correct for item in items)
    given_up = sum(not item.tried for item in items)
    wrong = len(items) - right - given_up
    met = {(item.problem, item.layout.variant) for item in items}
    again = sum((item.problem, item.layout.variant) in met for item in now.items)
    same = "none" if not again else "all" if again == len(now.items) else str(again)
    earlier = f"{right} right, {wrong} wrong, {given_up} given up; each of these showed its solution."
    return (
        f"Challenge number {len(challenges) + 1} of this lesson; {same} of its {len(now.items)} problems had "
        f"been asked in the same variant. In earlier ones: {earlier}"
    )


def _clock(timer: float | None) -> str:
    if timer is None:
        return "The clock was switched off."
    return "The clock ran as set by the lesson." if timer == 1 else f"The time was stretched {timer:g} times."


def _attempt_evidence(challenge: Challenge, pack: Pack) -> Iterable[dict[str, Any]]:
    for item in challenge.items:
        attempt = "first" if len(item.tried) == 1 else "second"
        hint = "with the hint" if item.hint_taken else "without a hint"
        late = ", after the time" if item.late else ""
        variant = f" Variant {item.layout.variant} of the problem." if item.layout.variant else ""
        yield {
            "type": ["Evidence"],
            "name": problem_of(item, pack, challenge.mode).title,
            "genre": "Attempt",
            "narrative": f"Correct at the {attempt} attempt, {hint}{late}; {item.points} points.{variant}",
        }


def _experiment_evidence(pack: Pack, results: Mapping[str, ExperimentResult]) -> Iterable[dict[str, Any]]:
    for name, result in sorted(results.items()):
        shows = pack.experiments[name].shows if name in pack.experiments else name
        machine = ", ".join(str(value) for value in result.machine.values())
        setting = {
            "machine": machine,
            "data": result.data,
            "seed": result.seed,
            "size": result.size,
            **{f"set to another value, {name}": result.parameters.get(name) for name in result.varied},
        }
        said = [*result.fields.items(), *setting.items()]  # one after the other: no name may hide another
        values = "; ".join(f"{key}: {value}" for key, value in said)
        yield {
            "type": ["Evidence"],
            "name": name,
            "genre": "Experiment",
            "description": shows,
            "narrative": f"Measured on the machine that gave the lesson. {values}",
        }


def rests_on(challenge: Challenge, pack: Pack) -> list[str]:
    """The experiments that settle a challenge's problems, as they were asked; each once."""
    asked = (problem_of(item, pack, challenge.mode).experiment for item in challenge.items)
    return [experiment for experiment in dict.fromkeys(asked) if experiment]


def award(
    challenge: Challenge,
    pack: Pack,
    store: Progress,
    *,
    name: str,
    home: Path,
    latest: Callable[[str], ExperimentResult | None],
    now: datetime,
) -> str:
    """The challenge's badge: the one that it has, else a new one, signed and kept.

    Args:
        challenge: with all problems correct.
        pack: its lesson.
        store: where badges are kept.
        name: the learner's name, as it shall stand on a new badge.
        home: HEADSTART_HOME, where the key is.
        latest: the newest result of an experiment; those that the problems rest on become evidence.
        now: the current time.

    Raises LessonError where a problem is not correct, or the mode gives no badge.
    """
    kept = store.badge(challenge.id)
    if kept is not None:
        return kept
    found = {experiment: latest(experiment) for experiment in rests_on(challenge, pack)}
    evidence = {key: result for key, result in found.items() if result is not None}
    earlier = store.challenges(learner=challenge.learner, pack=challenge.pack)
    credential = issue(
        challenge, pack, name=name, issuer=load_issuer(home), results=evidence, earlier=earlier
    )
    return store.keep_badge(challenge, credential, now)


# Verifying ------------------------------------------------------------------------------------------------


def verify(text: str, *, now: datetime, trusted: Iterable[str] = ()) -> Verified:
    """Checks a badge without any network.

    Args:
        text: the compact JWS (see `pictures.extract` for one baked into a picture).
        now: the current time; a badge from the future is refused.
        trusted: issuers' ids, for instance this installation's own.

    Raises BadgeError, saying why, where the badge is damaged, changed, or none of ours.
    """
    payload, key = _checked(text.strip())
    claims = {name: payload.pop(name, None) for name in ("iss", "jti", "nbf", "sub")}
    try:
        issuer, subject = payload["issuer"], payload["credentialSubject"]
        issued_at = datetime.fromisoformat(payload["validFrom"])
        name, achievement = subject["identifier"][0]["identityHash"], subject["achievement"]["name"]
        expected = _claims(payload)
        kinds, by = set(payload["type"]), str(issuer["id"])
        ahead = issued_at > now + CLOCK_SKEW  # TypeError for a time without a zone
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError):
        raise BadgeError(
            "the signature is valid, but this is no Headstart badge: a field is missing"
        ) from None
    if not set(TYPES) <= kinds:
        raise BadgeError(f"the signature is valid, but this is no badge: expected {TYPES[1]}")
    if claims != expected:
        raise BadgeError("the badge contradicts itself: its claims and its credential differ")
    names = {_did_key(key), _did_jwk(key)}
    if by not in names:
        raise BadgeError("the badge was signed by another key than its issuer's")
    if ahead:
        raise BadgeError(f"the badge is dated {issued_at:%Y-%m-%d}, which is in the future")
    trust = not names.isdisjoint(trusted)
    return Verified(str(achievement), str(name), by, issued_at, trust, payload, _circumstances_said(payload))


def _checked(text: str) -> tuple[dict[str, Any], Ed25519PublicKey]:
    """What a badge says, and the key in its header that signed it."""
    jwt = _jwt()
    if not _COMPACT.fullmatch(text):  # nor padding, which readers of JWT tolerate: one text for one badge
        raise BadgeError("this is no badge: expected three parts separated by dots")
    # The algorithm is ours to demand: a badge must not choose a weaker one, or none, for itself.
    jws = jwt.PyJWS(algorithms=[ALGORITHM])
    try:
        key = _public_key(jws.get_unverified_header(text))
        payload = parse_json(jws.decode(text, key, algorithms=[ALGORITHM]))
        json.dumps(payload, allow_nan=False)  # ValueError for numbers that JSON does not have
    except jwt.InvalidSignatureError:
        raise BadgeError("the badge was changed after it was signed, or is damaged") from None
    except (jwt.PyJWTError, ValueError, Unreadable):
        raise BadgeError("the badge is damaged") from None
    if not isinstance(payload, dict):
        raise BadgeError("the signature is valid, but this is no badge: expected an object")
    return payload, key


def _public_key(header: Mapping[str, Any]) -> Ed25519PublicKey:
    jwt, jwk = _jwt(), header.get("jwk")
    if header.get("alg") != ALGORITHM or not isinstance(jwk, dict):
        algorithm = printable(repr(header.get("alg")))[:40]
        raise BadgeError(f"unsupported signature {algorithm}: expected {ALGORITHM} with its public key")
    if (jwk.get("kty"), jwk.get("crv")) != ("OKP", "Ed25519") or set(jwk) != {"kty", "crv", "x"}:
        raise BadgeError("unsupported key: expected an Ed25519 public key")
    try:
        key: Ed25519PublicKey = jwt.PyJWK(jwk).key
    except (jwt.PyJWTError, ValueError, TypeError):
        raise BadgeError("the badge's public key is damaged") from None
    if _jwk(key) != jwk:
        raise BadgeError("the badge's public key is damaged")
    return key


# Encodings ------------------------------------------------------------------------------------------------


def _jwk(key: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(key.public_bytes_raw())}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _did_key(key: Ed25519PublicKey) -> str:
    """Multicodec's prefix of an Ed25519 public key, then the key, in base 58; `z` names that base."""
    number, text = int.from_bytes(_ED25519 + key.public_bytes_raw(), "big"), ""
    while number:
        number, digit = divmod(number, len(_BASE58))
        text = _BASE58[digit] + text
    return f"did:key:z{text}"


def _did_jwk(key: Ed25519PublicKey) -> str:
    return f"did:jwk:{_base64url(_json(_jwk(key)))}"


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("signing and verifying badges", extra="learn") from error
    return serialization, ed25519


def _jwt() -> Any:
    try:
        import jwt
    except ImportError as error:
        raise MissingExtra("signing and verifying badges", extra="learn") from error
    return jwt
