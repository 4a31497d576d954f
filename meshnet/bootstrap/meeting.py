"""Which interface will be the underlay? The one through which the other side answers."""

from __future__ import annotations

import asyncio

import attrs

from meshnet.enrolment.handshake import Greeting, greet, routed_source
from meshnet.errors import ConfigError
from meshnet.model.check import Check
from meshnet.model.kernel import Underlay
from meshnet.netlink.api import Netlink
from meshnet.netlink.underlay import NO_CANDIDATE, Candidate, choose
from meshnet.pki.token import JoinToken


@attrs.frozen(kw_only=True)
class Meeting:
    underlay: Underlay
    reason: str
    """Why this one."""
    check: Check


@attrs.frozen
class _Try:
    candidate: Candidate
    greetings: tuple[Greeting, ...]

    @property
    def answered(self) -> Greeting | None:
        return next((each for each in self.greetings if each.answered), None)

    @property
    def failure(self) -> str:
        why = "; ".join(f"{each.endpoint}: {each.error}" for each in self.greetings)
        return f"{self.candidate.underlay.ifname} ({why})"


async def meet(netlink: Netlink, token: JoinToken, wanted: str | None) -> Meeting:
    """Try every interface that could be it, or the one that the operator named.

    Raises:
        ConfigError: there is no such interface, or none at all.
    """
    candidates = await netlink.underlay_candidates()
    if wanted is not None:
        named = choose(candidates, wanted)
        candidates = tuple(each for each in candidates if each.underlay == named)
    if not candidates:
        raise ConfigError(NO_CANDIDATE)
    tries = await asyncio.gather(*(_try(token, candidate) for candidate in candidates))
    reached = [each for each in tries if each.answered]
    if not reached:
        return _unmet(tries, candidates, wanted)
    best, reason = _preferred(reached, wanted)
    underlay = best.candidate.underlay
    addresses = ", ".join(map(str, underlay.addresses))
    evidence = f"{underlay.ifname} ({addresses}): {reason}"
    return Meeting(
        underlay=underlay,
        reason=reason,
        check=Check(check="underlay", ok=True, evidence=evidence),
    )


async def _try(token: JoinToken, candidate: Candidate) -> _Try:
    underlay = candidate.underlay
    greetings = (
        greet(token, endpoint, underlay.ifname, underlay.addresses) for endpoint in token.endpoints
    )
    return _Try(candidate, tuple(await asyncio.gather(*greetings)))


def _preferred(reached: list[_Try], wanted: str | None) -> tuple[_Try, str]:
    first = reached[0]
    assert first.answered is not None
    signer = first.answered.endpoint
    if wanted is not None:
        return first, f"named by --underlay, and signer {signer} answers through it"
    if len(reached) == 1:
        return first, f"the only interface through which signer {signer} answers"
    source = routed_source(signer)
    for each in reached:
        if source in [str(address) for address in each.candidate.underlay.addresses]:
            others = ", ".join(
                other.candidate.underlay.ifname for other in reached if other != each
            )
            return each, f"this host's route to signer {signer}; it answers through {others} too"
    return first, f"signer {signer} answers through it"


def _unmet(tries: list[_Try], candidates: tuple[Candidate, ...], wanted: str | None) -> Meeting:
    """Nobody answers: what the host's routes say, so that the rest can still be looked at."""
    try:
        underlay = choose(candidates, wanted)
    except ConfigError:
        underlay = candidates[0].underlay
    fixes = (greeting.fix for each in tries for greeting in each.greetings if greeting.fix)
    check = Check(
        check="underlay",
        ok=False,
        evidence=f"no signer answers through {'; '.join(each.failure for each in tries)}",
        fix=next(fixes, "give the host an address of the signer's IP version"),
    )
    return Meeting(underlay=underlay, reason="no signer answers", check=check)
