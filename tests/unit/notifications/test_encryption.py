"""A push is encrypted as RFC 8291 says: its example byte for byte, and another library reads the rest."""

from __future__ import annotations

import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.pushes import DecryptError, decrypted
from wakeline.gateway.notifications.channels.encryption import MOST_BYTES, MOST_PLAIN_BYTES, encrypted, point_of
from wakeline.gateway.notifications.channels.vapid import decoded, new_keys, unpadded

TEXT = b"When I grow up, I want to be a watermelon"
RECEIVER = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
SENDER = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SALT = "DGv6ra1nlYgDCS1FRnbzlw"
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_"
    "yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)


def test_the_example_of_the_rfc_has_its_bytes() -> None:
    sender = ec.derive_private_key(int.from_bytes(decoded(SENDER), "big"), ec.SECP256R1())
    made = encrypted(TEXT, decoded(RECEIVER), decoded(AUTH), sender=sender, salt=decoded(SALT))
    assert unpadded(made) == BODY


@pytest.mark.parametrize("size", [0, 1, 1000, MOST_PLAIN_BYTES])
def test_another_library_reads_what_was_encrypted(size: int) -> None:
    key, auth, text = ec.generate_private_key(ec.SECP256R1()), os.urandom(16), os.urandom(size)
    body = encrypted(text, point_of(key), auth)
    assert decrypted(body, key, auth) == text


def test_the_largest_text_has_the_largest_body() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert len(encrypted(b"x" * MOST_PLAIN_BYTES, point_of(key), os.urandom(16))) == MOST_BYTES


def test_each_body_has_a_key_and_a_salt_of_its_own() -> None:
    key, auth = ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    one, other = (encrypted(TEXT, point_of(key), auth) for _ in range(2))
    assert one[:16] != other[:16]
    assert one[21:86] != other[21:86]


def test_another_browser_cannot_read_it() -> None:
    key, other, auth = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1()), os.urandom(16)
    with pytest.raises(DecryptError):
        decrypted(encrypted(TEXT, point_of(key), auth), other, auth)


def test_new_keys_belong_together() -> None:
    private, public = new_keys()
    key = ec.derive_private_key(int.from_bytes(decoded(private), "big"), ec.SECP256R1())
    assert unpadded(point_of(key)) == public
    assert len(decoded(private)) == 32
