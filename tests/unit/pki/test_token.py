"""A token carries everything a joiner needs, and a bad copy of one says so."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnet.errors import TokenRefused
from meshnet.model.token import TokenKind
from meshnet.pki.ca import Signer
from meshnet.pki.token import JoinToken, new_secret

CA = Signer.create("east").mesh.certificate


def token(**fields: object) -> JoinToken:
    defaults: dict[str, object] = {
        "cluster": "east",
        "cluster_id": 7,
        "kind": TokenKind.MESH,
        "endpoints": ("10.0.0.1:4244", "[fd00::1]:4244"),
        "ca": CA,
        "secret": bytes(range(32)),
    }
    return JoinToken(**{**defaults, **fields})  # type: ignore[arg-type]  # fields vary by test


@given(
    cluster=st.from_regex(r"[a-z][a-z0-9]{0,20}", fullmatch=True).filter(lambda n: n != "default"),
    cluster_id=st.integers(1, 255),
    kind=st.sampled_from(TokenKind),
    endpoints=st.lists(st.from_regex(r"10\.0\.0\.[0-9]:4244", fullmatch=True), max_size=5),
    secret=st.binary(min_size=32, max_size=32),
)
def test_token_says_after_decoding_what_was_encoded(
    cluster: str, cluster_id: int, kind: TokenKind, endpoints: list[str], secret: bytes
) -> None:
    sent = token(
        cluster=cluster,
        cluster_id=cluster_id,
        kind=kind,
        endpoints=tuple(endpoints),
        secret=secret,
    )

    got = JoinToken.decode(f"  {sent.encode()}\n")

    assert (got.cluster, got.cluster_id, got.kind) == (cluster, cluster_id, kind)
    assert (got.endpoints, got.secret) == (tuple(endpoints), secret)
    assert got.ca.pem == CA.pem


@given(st.integers(min_value=len("mnt1."), max_value=len(token().encode()) - 1))
def test_truncated_token_is_refused_wherever_it_was_cut(length: int) -> None:
    with pytest.raises(TokenRefused) as refusal:
        JoinToken.decode(token().encode()[:length])

    expected = f"join token of {length} characters is truncated or damaged: copy it again"
    assert str(refusal.value) == expected


@given(st.data())
def test_token_with_one_wrong_byte_is_refused(data: st.DataObject) -> None:
    text = token().encode().removeprefix("mnt1.")
    raw = bytearray(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    position = data.draw(st.integers(0, len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))

    with pytest.raises(TokenRefused, match=r"is truncated or damaged: copy it again$"):
        JoinToken.decode("mnt1." + base64.urlsafe_b64encode(bytes(raw)).decode())


@pytest.mark.parametrize("text", ["", "hello", "mnt2.abcd", "MNT1.abcd"])
def test_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenRefused, match=r"^not a join token: it must start with 'mnt1\.'$"):
        JoinToken.decode(text)


def test_token_of_the_wrong_kind_names_the_right_command() -> None:
    with pytest.raises(TokenRefused) as refusal:
        token(kind=TokenKind.NODE).require(TokenKind.MESH)

    assert str(refusal.value) == (
        "token of cluster 'east' is for `meshnet cluster join`, not for `meshnet mesh join`"
    )


def test_secret_shows_in_no_repr() -> None:
    secret = new_secret()
    shown = repr(token(secret=secret))

    assert repr(secret) not in shown
    assert secret.hex() not in shown
