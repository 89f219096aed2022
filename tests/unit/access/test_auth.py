"""Tokens: which are taken, and what each of the others is told."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.tokens import EVERYTHING, SECRET, by_hand, claims, jwk, token
from wakeline.errors import NotAllowedError, SettingsInvalidError, TokenExpiredError, TokenInvalidError
from wakeline.gateway.access import Addresses, Auth, Grant, Guard, Keys, Tickets
from wakeline.gateway.access.keys import parse_jwks
from wakeline.gateway.delivery import Topics
from wakeline.gateway.log.engines.memory import MemoryEngine
from wakeline.gateway.settings import Settings

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
STRANGERS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def auth(keys: Keys | None = None, **how: Any) -> Auth:
    settings, keys = Settings(token_secret=SECRET, **how), keys or Keys(SECRET, None)
    return Auth(settings, keys, Tickets(MemoryEngine(), keys), Guard(settings, Addresses()))


@pytest.fixture
async def public(tmp_path: Any) -> Any:
    """A gateway's keys: a secret and a file with three public ones."""
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(RSA, "r"), jwk(EC, "e"), jwk(ED, "d")]}))
    keys = Keys(SECRET, str(file))
    await keys.start()
    yield auth(keys)
    await keys.stop()


async def refused(auth: Auth, text: str) -> str:
    with pytest.raises(TokenInvalidError) as refusal:
        await auth.verify(text)
    said = refusal.value.message + refusal.value.hint
    assert text[:40] not in said
    assert all(len(part) < 8 or part not in said for part in text.split("."))
    return refusal.value.message


async def test_a_token_is_made_into_a_grant() -> None:
    exp = time.time() + 60
    made = token(exp=exp, sessions=["order-*", "chat"], allow=["read", "ack"], topics=["status", "$run.*"], cache=True)
    assert await auth().verify(made) == Grant(
        "alice", ("order-*", "chat"), frozenset({"read", "ack"}), Topics(["status", "$run.*"]), exp, True
    )


async def test_a_token_names_the_inputs_that_it_may_send() -> None:
    for_all = await auth().verify(token(inputs=["approve", "say.*"]))
    for_all.check_input("order-1", "say.loudly")
    by_session = await auth().verify(token(inputs={"chat-*": ["say"], "order-1": ["approve"]}))
    by_session.check_input("chat-1", "say")
    by_session.check_input("order-1", "approve")
    none = await auth().verify(token())
    ends = await auth().verify(token(inputs=["*", "$cancel"]))
    ends.check_input("order-1", "$cancel")
    ends.check_input("order-1", "cancel")
    refusals = (
        (ends, "order-1", "$terminate"),
        (for_all, "order-1", "reject"),
        (by_session, "order-1", "say"),
        (none, "order-1", "approve"),
    )
    for grant, session, name in refusals:
        with pytest.raises(NotAllowedError, match=re.escape(name)):
            grant.check_input(session, name)


async def test_without_a_scope_a_token_allows_nothing() -> None:
    made = jwt.encode({"sub": "alice", "exp": time.time() + 60}, SECRET)
    grant = await auth().verify(made)
    assert (grant.sessions, grant.allow, grant.topics, grant.cache) == ((), frozenset(), None, False)


@pytest.mark.parametrize(("key", "alg", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e"), (ED, "EdDSA", "d")])
async def test_tokens_signed_with_a_public_key_s_private_half(public: Auth, key: Any, alg: str, kid: str) -> None:
    for headers in ({"kid": kid}, None):  # without a kid, there must be one key that it could be
        assert (await public.verify(token(key, alg, headers))).user == "alice"
    assert "signature" in await refused(public, token(STRANGERS[alg], alg, {"kid": kid}))


async def test_an_algorithm_meets_keys_of_its_own_kind_only(public: Auth) -> None:
    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    payload = json.dumps(claims()).encode()
    assert "signature" in await refused(public, by_hand({"alg": "HS256", "kid": "r"}, payload, pem))
    for kid, alg in (("r", "ES256"), ("e", "RS256"), ("d", "ES256")):
        assert "kid and alg" in await refused(public, by_hand({"alg": alg, "kid": kid}, payload, b"x"))
    for alg in ("none", "None", "NONE", "nOnE", "", "HS384", "HS512", "PS256", "RS384", "ES384", "A128KW", "dir"):
        expected = f"expected a token signed with HS256 or RS256 or ES256 or EdDSA, got alg {alg!r}"
        assert await refused(public, by_hand({"alg": alg}, payload, None)) == expected
        assert await refused(public, by_hand({"alg": alg}, payload, SECRET.encode())) == expected
    for odd in (None, 1, ["HS256"], {"HS256": 1}, True):
        assert "expected a token signed with" in await refused(public, by_hand({"alg": odd}, payload, SECRET.encode()))
    assert "with HS256" in await refused(auth(), token(RSA, "RS256"))


@pytest.mark.parametrize(
    "kid",
    ["../../../../dev/null", "r' OR '1'='1", "r\0", "r\n", "", "R", "file:///etc/passwd", "x" * 4000, "キー"],
)
async def test_a_kid_is_a_name_and_nothing_else(public: Auth, kid: str) -> None:
    payload = json.dumps(claims()).encode()
    assert "its kid and alg match none" in await refused(public, token(RSA, "RS256", {"kid": kid}))
    assert "its kid and alg match none" in await refused(public, by_hand({"alg": "RS256", "kid": kid}, payload, b""))


async def test_a_kid_of_another_type_is_refused(public: Auth) -> None:
    for kid in (1, ["r"], {"r": 1}, False):
        assert "kid" in await refused(public, by_hand({"alg": "RS256", "kid": kid}, b"{}", b""))


async def test_what_a_header_names_is_never_followed(public: Auth) -> None:
    stranger = STRANGERS["RS256"]
    for headers in (
        {"jwk": jwk(stranger, "r"), "kid": "r"},
        {"jku": "http://127.0.0.1:1/keys", "kid": "r"},
        {"x5u": "http://127.0.0.1:1/cert", "kid": "r"},
        {"x5c": ["MIIB"], "kid": "r"},
    ):
        assert "signature" in await refused(public, token(stranger, "RS256", headers))
    # They do no harm in a token that is good, either.
    assert (await public.verify(token(RSA, "RS256", {"jku": "http://127.0.0.1:1/keys", "kid": "r"}))).user == "alice"
    for critical in (["exp"], [], ["b64"], "exp", 1):
        made = by_hand({"alg": "HS256", "crit": critical, "b64": True}, json.dumps(claims()).encode(), SECRET.encode())
        assert await refused(public, made)
    made = by_hand({"alg": "HS256", "crit": ["b64"], "b64": False}, json.dumps(claims()).encode(), SECRET.encode())
    assert "crit" in await refused(public, made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "..",
        "a.b.c.d.e",
        "é.é.é",
        "\udce9.b.c",
        "eyJhbGciOiJIUzI1NiJ9==.e30.x",
        "[" * 8000,
        by_hand({"alg": "HS256"}, b"{}", SECRET.encode())[:-1] + "!",
        " ".join(by_hand({"alg": "HS256"}, b"{}", SECRET.encode()).split(".")),
    ],
)
async def test_what_is_no_token_is_told_so(text: str) -> None:
    with pytest.raises(TokenInvalidError, match="expected a"):
        await auth().verify(text)


async def test_deep_and_odd_headers_are_no_tokens() -> None:
    for header in (b"[" * 5000, b'"alg"', b"[]", b'{"alg":' * 800, b"\xff\xfe", b"null", b'{"a":1}'):
        encoded = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
        assert "expected a" in await refused(auth(), f"{encoded}.e30.aaaaaaaa")


async def test_tampered_tokens_are_refused() -> None:
    header, payload, signature = token(allow=["read"]).split(".")
    _, other, _ = token(allow=["manage"]).split(".")
    assert "signature" in await refused(auth(), f"{header}.{other}.{signature}")
    assert "signature" in await refused(auth(), f"{header}.{payload}.{signature[:-4]}AAAA")
    assert "signature" in await refused(auth(), f"{header}.{payload}.")
    assert "signature" in await refused(auth(), token("another secret of more than 32 bytes"))


async def test_a_token_signed_with_the_decoded_secret_is_told_to_use_its_text() -> None:
    secret = "0123456789abcdef" * 4
    checked = auth(Keys(secret, None))
    await checked.verify(token(secret))
    with pytest.raises(TokenInvalidError, match="another signature") as refusal:
        await checked.verify(token(bytes.fromhex(secret)))
    assert "as it stands" in refusal.value.hint


async def test_large_tokens_are_refused_before_they_are_read() -> None:
    await auth().verify(token(sessions=["s" * 500] * 11))
    large = token(sessions=["s" * 500] * 12)
    assert await refused(auth(), large) == f"expected a token of at most 8192 bytes, got {len(large)}"
    assert await refused(auth(), "x" * 65536) == "expected a token of at most 8192 bytes, got 65536"


@pytest.mark.parametrize(
    ("changed", "claim"),
    [
        ({"exp": None}, "exp"),
        ({"exp": "2100-01-01"}, "exp"),
        ({"exp": "4102444800"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": []}, "exp"),
        ({"exp": 0}, "exp"),
        ({"exp": -1}, "exp"),
        ({"exp": 1 << 63}, "exp"),
        ({"exp": 10**400}, "JSON|exp"),
        ({"exp": 1e300}, "exp"),
        ({"exp": 1_790_000_000_000_000}, "exp"),  # not seconds
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": "é" * 129}, "sub"),
        ({"nbf": "now"}, "nbf"),
        ({"nbf": 32_500_000_000.5}, "nbf"),  # in the year 2999
        ({"allow": "read"}, r"wakeline\.allow"),
        ({"allow": ["read", "fly"]}, r"wakeline\.allow"),
        ({"allow": [1]}, r"wakeline\.allow"),
        ({"allow": ["Read"]}, r"wakeline\.allow"),
        ({"sessions": "order-*"}, r"wakeline\.sessions"),
        ({"sessions": [1]}, r"wakeline\.sessions"),
        ({"sessions": [""]}, r"wakeline\.sessions"),
        ({"sessions": ["a\nb"]}, r"wakeline\.sessions"),
        ({"sessions": ["x" * 513]}, r"wakeline\.sessions"),
        ({"topics": "status"}, r"wakeline\.topics"),
        ({"topics": [""]}, r"wakeline\.topics"),
        ({"topics": ["a\0"]}, r"wakeline\.topics"),
        ({"topics": [None]}, r"wakeline\.topics"),
        ({"cache": "yes"}, r"wakeline\.cache"),
        ({"topic": ["status"]}, "wakeline.*'topic'"),
    ],
    ids=str,
)
async def test_a_claim_that_is_wrong_is_named(changed: dict[str, Any], claim: str) -> None:
    wanted = claims(**changed)
    text = by_hand({"alg": "HS256"}, json.dumps(wanted).encode(), SECRET.encode())
    with pytest.raises(TokenInvalidError, match=claim):
        await auth().verify(text)


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"null", b"7", b"{", b'{"exp": NaN}', b"\xff", b"[" * 4000, b'{"sub":"\xed\xa0\x80"}']
)
async def test_claims_that_are_no_object_are_refused(payload: bytes) -> None:
    await refused(auth(), by_hand({"alg": "HS256"}, payload, SECRET.encode()))


@pytest.mark.parametrize(
    "changed",
    [
        {"sessions": ["*/alice/x"]},
        {"sessions": ["a", "**"]},
        {"topics": ["$*.closed"]},
        {"publishers": ["w*rker"]},
        {"inputs": ["s*y"]},
        {"inputs": {"*/alice": ["say"]}},
        {"inputs": {"order-*": ["s*y"]}},
    ],
    ids=str,
)
async def test_a_star_that_is_no_wildcard_is_refused(changed: dict[str, Any]) -> None:
    (claim,) = changed
    with pytest.raises(TokenInvalidError) as caught:
        await auth().verify(token(**changed))
    assert f"wakeline.{claim} to be a name, or a prefix that ends in *, got" in caught.value.message
    assert "a star elsewhere is no wildcard" in caught.value.hint


async def test_an_unknown_action_is_named_with_those_there_are() -> None:
    with pytest.raises(TokenInvalidError) as caught:
        await auth().verify(token(allow=["read", "publsh"]))
    assert caught.value.message == (
        "expected actions in the claim wakeline.allow, "
        "of read, ack, publish, input, manage, follow, restore, got 'publsh'"
    )
    assert caught.value.hint.endswith("; did you mean publish?")


@pytest.mark.parametrize("alg", ["HS512", "none", "RS256"])
async def test_another_algorithm_is_named(alg: str) -> None:
    said = await refused(auth(), by_hand({"alg": alg}, b"{}", b"x"))
    assert said == f"expected a token signed with HS256, got alg {alg!r}"


async def test_a_list_in_place_of_the_scope_is_refused() -> None:
    for scope in ([], "*", 1, [EVERYTHING]):
        payload = json.dumps({"sub": "a", "exp": time.time() + 9, "wakeline": scope}).encode()
        assert "wakeline" in await refused(auth(), by_hand({"alg": "HS256"}, payload, SECRET.encode()))


async def test_a_token_of_another_time_is_refused_with_the_gateway_s_clock() -> None:
    with pytest.raises(TokenExpiredError, match="expired at 1970-01-01 00:00:01 UTC, the gateway's clock has 2"):
        await auth().verify(token(exp=1))
    said = await refused(auth(), token(exp=4_102_444_801, nbf=4_102_444_800))
    assert "got one from 2100-01-01 00:00:00 UTC on (nbf), the gateway's clock has 2" in said


async def test_time_is_kept() -> None:
    checked = auth()
    with pytest.raises(TokenExpiredError):
        await checked.verify(token(exp=time.time() - 0.01))
    with pytest.raises(TokenExpiredError):
        await checked.verify(token(exp=1))
    await checked.verify(token(nbf=time.time() + 20))  # the issuer's clock may be ahead
    exp = time.time() + 4
    made = token(exp=exp)
    await checked.verify(made)
    await asyncio.sleep(max(0, exp + 0.05 - time.time()))
    with pytest.raises(TokenExpiredError):  # also what is remembered as verified
        await checked.verify(made)


async def test_issuer_and_audience_are_checked_where_they_are_set() -> None:
    strict = auth(token_issuer="https://issuer.example", token_audience="wakeline")
    good: dict[str, Any] = {"iss": "https://issuer.example", "aud": "wakeline"}
    await strict.verify(token(**good))
    await strict.verify(token(**(good | {"aud": ["other", "wakeline"]})))
    for wrong in ("https://issuer.example/", "HTTPS://ISSUER.EXAMPLE", "", None):
        assert "iss" in await refused(strict, token(**(good | {"iss": wrong})))
    for aud in ("Wakeline", "wakeline2", [], ["other"], None):
        assert "aud" in await refused(strict, token(**(good | {"aud": aud})))
    payload = json.dumps(claims(**good) | {"aud": {"wakeline": 1}}).encode()
    assert "aud" in await refused(strict, by_hand({"alg": "HS256"}, payload, SECRET.encode()))
    await auth().verify(token(iss="anybody", aud="anything"))


async def test_what_was_verified_is_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wakeline.gateway.access.auth._CACHED", 100)
    checked = auth()
    made = [token(sub=f"user-{number}") for number in range(300)]
    for text in made:
        await checked.verify(text)
    assert len(checked._verified) == 100
    assert (await checked.verify(made[-1])) is (await checked.verify(made[-1]))


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("", "at least 32 bytes, got 0"),
        ("short", "at least 32 bytes, got 5"),
        ("x" * 31, "at least 32 bytes, got 31"),
        (
            RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
            "looks like a public key",
        ),
    ],
    ids=["empty", "short", "a byte short", "a public key"],
)
def test_a_secret_must_be_one(secret: str, message: str) -> None:
    with pytest.raises(SettingsInvalidError, match=message):
        Keys(secret, None)


def test_keys_that_cannot_sign_tokens_are_passed_over() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    entries = [
        jwk(RSA, "good"),
        jwk(RSA, "encrypts", use="enc"),
        jwk(RSA, "other-algorithm", alg="RS512"),
        jwk(RSA, "confused", alg="HS256"),
        jwk(weak, "weak"),
        jwk(ec.generate_private_key(ec.SECP384R1()), "other-curve"),
        jwk(ED, "cannot-verify", key_ops=["sign"]),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a-secret-in-public"},
        {"kty": "RSA", "kid": "half"},
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "not-on-the-curve"},
        {"kty": 7},
        "a string",
    ]
    assert [public.kid for public in parse_jwks(json.dumps({"keys": entries}).encode())] == ["good"]
    private = {**jwt.algorithms.RSAAlgorithm.to_jwk(RSA, as_dict=True), "key_ops": ["verify"], "kid": "private"}
    (public,) = parse_jwks(json.dumps({"keys": [private]}).encode())
    assert not public.key.is_private


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": null}', b"<html>", b"[" * 9999])
def test_what_is_no_jwks_is_told_so(content: bytes) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_jwks(content)


async def test_two_keys_that_could_be_meant_ask_for_a_kid(tmp_path: Any) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(RSA, "a"), jwk(STRANGERS["RS256"], "b")]}))
    keys = Keys(None, str(file))
    await keys.start()
    checked = auth(keys)
    assert "expected a kid" in await refused(checked, token(RSA, "RS256"))
    await checked.verify(token(RSA, "RS256", {"kid": "a"}))
    assert "signed with RS256" in await refused(checked, token())
    await keys.stop()


async def test_the_hint_of_a_wrong_claim_is_not_to_use_another_key() -> None:
    text = by_hand({"alg": "HS256"}, json.dumps(claims(seesions=["a"])).encode(), SECRET.encode())
    with pytest.raises(TokenInvalidError) as misspelt:
        await auth().verify(text)
    assert "one of sessions, allow" in misspelt.value.message
    assert "did you mean sessions?" in misspelt.value.hint
    for changed in ({"sub": ""}, {"allow": ["fly"]}):
        with pytest.raises(TokenInvalidError) as refusal:
            await auth().verify(by_hand({"alg": "HS256"}, json.dumps(claims(**changed)).encode(), SECRET.encode()))
        assert "correct the claim" in refusal.value.hint


async def test_without_a_secret_no_hint_is_to_sign_a_token_with_it(tmp_path: Any) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [jwk(RSA, "r")]}))
    keys = Keys(None, str(file))
    await keys.start()
    settings = Settings(token_jwks=str(file))
    checked = Auth(settings, keys, Tickets(MemoryEngine(), keys), Guard(settings, Addresses()))
    for text in (token(), "no token"):
        with pytest.raises(TokenInvalidError) as refusal:
            await checked.verify(text)
        assert "wakeline token" not in refusal.value.hint
        assert "token_jwks" in refusal.value.hint
    await keys.stop()
