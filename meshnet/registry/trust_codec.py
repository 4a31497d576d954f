"""What the nodes of a cluster tell each other of its trust: CAs, signers, what was called back.

Apart from codec.py only for its length; the rules are the same: a decoder raises PoisonedKey
and nothing else. None of it is exported to other clusters.
"""

from __future__ import annotations

from meshnet.errors import PoisonedKey
from meshnet.model.authority import Crl, Issued, Revocation, ToldRemote, TrustReport, TrustState
from meshnet.registry import wire


def encode_trust(state: TrustState) -> bytes:
    return wire.dump(state)


def decode_trust(key: str, value: bytes) -> TrustState:
    state = wire.load(key, value, TrustState)
    if not state.node_cas or not state.mesh_cas:
        raise PoisonedKey(key, "it names no CA")
    return state


def encode_trust_report(report: TrustReport) -> bytes:
    return wire.dump(report)


def decode_trust_report(key: str, value: bytes) -> TrustReport:
    return wire.load(key, value, TrustReport)


def encode_crl(crl: Crl) -> bytes:
    return wire.dump(crl)


def decode_crl(key: str, value: bytes) -> Crl:
    return wire.load(key, value, Crl)


def encode_issued(issued: Issued) -> bytes:
    return wire.dump(issued)


def decode_issued(key: str, value: bytes) -> Issued:
    return wire.load(key, value, Issued)


def encode_revocation(revocation: Revocation) -> bytes:
    return wire.dump(revocation)


def decode_revocation(key: str, value: bytes) -> Revocation:
    return wire.load(key, value, Revocation)


def encode_told(told: ToldRemote) -> bytes:
    return wire.dump(told)


def decode_told(key: str, value: bytes) -> ToldRemote:
    return wire.load(key, value, ToldRemote)
