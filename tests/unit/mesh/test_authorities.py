"""What another cluster may change of what was pinned: its own CAs, by its own word alone."""

from __future__ import annotations

import attrs
import pytest

from meshnet.enrolment.messages import AuthoritiesReply
from meshnet.errors import Refused
from meshnet.mesh.authorities import pinned_anew, signers_of
from meshnet.model.addressing import parse_prefix
from meshnet.model.remote import Remote, RemoteState
from meshnet.pki.ca import Signer
from meshnet.pki.certificate import Authority

WEST, NORTH = (Signer.create(name).mesh for name in ("west", "north"))
WEST_PEM, NORTH_PEM = (ca.certificate.pem.decode() for ca in (WEST, NORTH))
NEXT_PEM = WEST.successor("west", Authority.MESH).certificate.pem.decode()


def remote(name: str, number: int, pem: str) -> Remote:
    return Remote(
        name=name,
        id=number,
        mesh_ca=pem,
        pod_cidrs=(parse_prefix(f"10.{number}.0.0/16"),),
        gateways=("192.0.2.7:4243", "[2001:db8::7]:4243"),
        state=RemoteState.COMMITTED,
    )


REMOTE = remote("west", 2, WEST_PEM)
KNOWN = [REMOTE, remote("north", 3, NORTH_PEM)]


def reply(*pems: str, name: str = "west", **changes: tuple[str, ...]) -> AuthoritiesReply:
    return AuthoritiesReply(name=name, mesh_cas=pems, signers=("192.0.2.7:4244",), **changes)


def test_same_answer_changes_nothing() -> None:
    assert pinned_anew(REMOTE, reply(WEST_PEM), KNOWN) == REMOTE


def test_change_of_cas_is_followed_step_by_step_and_nothing_else_moves() -> None:
    both = pinned_anew(REMOTE, reply(WEST_PEM, NEXT_PEM), KNOWN)
    turned = pinned_anew(both, reply(NEXT_PEM, WEST_PEM), KNOWN)
    alone = pinned_anew(turned, reply(NEXT_PEM), KNOWN)

    assert both.trusted == (WEST_PEM, NEXT_PEM)
    assert turned.trusted == (NEXT_PEM, WEST_PEM)
    assert alone.trusted == (NEXT_PEM,)
    restored = attrs.evolve(alone, mesh_ca=WEST_PEM, signers=())
    assert restored == REMOTE


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(WEST_PEM, name="north"), "signer of cluster 'west' answers as cluster 'north'"),
        (reply(), "cluster 'west' names 0 CAs: 1 or 2"),
        (reply(WEST_PEM, NEXT_PEM, NEXT_PEM), "cluster 'west' names 3 CAs: 1 or 2"),
        (
            reply(WEST_PEM, NORTH_PEM),
            "cluster 'west' names a CA like that of another: CN=meshnet north mesh CA",
        ),
    ],
)
def test_answer_that_reaches_beyond_its_own_is_refused(
    answer: AuthoritiesReply, message: str
) -> None:
    with pytest.raises(Refused) as refusal:
        pinned_anew(REMOTE, answer, KNOWN)

    assert str(refusal.value) == message


def test_text_that_is_no_ca_is_refused() -> None:
    with pytest.raises(Refused, match=r"^not a PEM certificate"):
        pinned_anew(REMOTE, reply("hello"), KNOWN)


def test_flood_of_revocations_is_cut() -> None:
    serials = tuple(f"{number:x}" for number in range(5000))

    found = pinned_anew(REMOTE, reply(WEST_PEM, revoked=serials, expelled=serials), KNOWN)

    assert len(found.revoked) == len(found.expelled) == 1000


def test_signers_are_looked_for_on_its_gateways_until_it_names_them() -> None:
    assert signers_of(REMOTE) == ("192.0.2.7:4244", "[2001:db8::7]:4244")
    assert signers_of(attrs.evolve(REMOTE, signers=("192.0.2.9:4244",))) == ("192.0.2.9:4244",)
