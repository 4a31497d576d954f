"""`lab test`: the lab comes up, its clusters form, its endpoints start, and it is as expected."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from meshnet.errors import LabError, NotFound, UsageError
from topology import clab, formation, labs, state
from topology.expect import model
from topology.expect.model import Expectation, Expectations, Refused, Run, Survive
from topology.expect.outcome import Outcome
from topology.expect.probe import AGAIN_S, Endpoint, Prober, find
from topology.faults import fault
from topology.inside import run, run_all
from topology.model import RuntimeKind
from topology.netns.deploy import Say
from topology.state import LabState

SERVE = (
    "python3", "-m", "http.server", str(model.PORT), "--bind", "::", "--directory", "/usr/share",
)  # fmt: skip


def test(file: Path, say: Say, warn: Say, *, keep: bool = False) -> Iterator[Outcome]:
    """Run a file's expectations, one outcome after the other.

    A lab that is not up comes up and is taken away again; one that is up stays.

    Raises:
        ConfigError: the file or its expectations are wrong.
        UsageError: it expects nothing.
        LabError: the lab, a cluster or an endpoint did not come up.
    """
    layout = clab.read(file)
    expected = model.read(layout)
    if not expected.expect:
        raise UsageError(
            f"{file} expects nothing: write {'.'.join(model.WHERE)}.expect, see docs/how-to/labs.md"
        )
    try:
        state.load(layout.name)
        keep = True
    except NotFound:
        say(f"lab {layout.name} comes up")
    lab = labs.up(file, RuntimeKind.NETNS, lambda _: None, warn)
    try:
        yield from _outcomes(lab, expected, say)
    finally:
        if not keep:
            labs.down(layout.name)


def _outcomes(lab: LabState, expected: Expectations, say: Say) -> Iterator[Outcome]:
    if any(formation.CLUSTER in node.labels for node in lab.nodes.values()):
        formation.form(lab, say, apart=expected.apart)
    prober = Prober(lab, _endpoints(lab, expected, say))
    for one in expected.expect:
        yield from _check(lab, prober, one, say)


def _endpoints(lab: LabState, expected: Expectations, say: Say) -> dict[str, Endpoint]:
    """Started where they are not there yet, one a node at a time."""
    if expected.endpoints:
        say(f"starting {', '.join(expected.endpoints)}")
    left = {
        name: spec
        for name, spec in expected.endpoints.items()
        if find(lab, spec.node, name) is None
    }
    while left:
        batch = {spec.node: name for name, spec in reversed(left.items())}
        run_all(lab, {node: _start(name, left[name]) for node, name in batch.items()})
        left = {name: spec for name, spec in left.items() if name not in batch.values()}
    found = {}
    for name, spec in expected.endpoints.items():
        endpoint = find(lab, spec.node, name)
        if endpoint is None:
            raise LabError(f"endpoint {name!r} ended on {spec.node} as soon as it was started")
        found[name] = endpoint
    return found


def _start(name: str, spec: model.EndpointSpec) -> tuple[str, ...]:
    labels = {"app": name, **spec.labels}
    words = (word for key, value in labels.items() for word in ("--label", f"{key}={value}"))
    return ("meshnet", "run", "--name", name, *words, "--detach", "--", *SERVE)


def _check(lab: LabState, prober: Prober, one: Expectation, say: Say) -> Iterator[Outcome]:
    if one.reach:
        yield from prober.check([one.reach])
    elif one.run:
        yield _run(lab, one.run, prober.endpoints)
    elif one.refused:
        yield _refused(lab, one.refused)
    elif one.survive:
        yield from _survive(lab, prober, one.survive, say)


def _survive(lab: LabState, prober: Prober, one: Survive, say: Say) -> Iterator[Outcome]:
    words = one.fault.split()
    one_way = "--one-way" in words
    say(f"fault: {one.fault}")
    fault.apply(lab, [word for word in words if word != "--one-way"], one_way=one_way)
    try:
        for outcome in prober.check(one.reach, one.within):
            yield _named(outcome, f"{one.fault}: ")
        for command in one.run:
            yield _named(_run(lab, command, prober.endpoints), f"{one.fault}: ")
    finally:
        fault.apply(lab, ["heal"])
    for outcome in prober.check(one.then, one.within):
        yield _named(outcome, f"{one.fault}, healed: ")


def _named(outcome: Outcome, prefix: str) -> Outcome:
    return Outcome(name=prefix + outcome.name, problem=outcome.problem, seconds=outcome.seconds)


ADDRESS = re.compile(r"\{([\w-]+)\.(ipv4|ipv6)\}")


def _run(lab: LabState, one: Run, endpoints: Mapping[str, Endpoint]) -> Outcome:
    """Tried again until it is as expected or the time is over."""

    def address(match: re.Match[str]) -> str:
        if match[1] not in endpoints:
            raise LabError(f"run names endpoint {match[1]!r}: there are {', '.join(endpoints)}")
        return str(getattr(endpoints[match[1]], match[2]))

    words = [ADDRESS.sub(address, word) for word in shlex.split(one.command)]
    began = time.monotonic()
    while True:
        try:
            said = run(lab, one.node, *words)
            problem = "" if re.search(one.says, said) else f"it says {said.strip()[-300:]!r}"
        except LabError as error:
            problem = str(error)
        spent = time.monotonic() - began
        if not problem or spent > one.within:
            return Outcome(name=f"{one.node}: {one.command}", problem=problem, seconds=spent)
        time.sleep(AGAIN_S)


def _refused(lab: LabState, one: Refused) -> Outcome:
    began = time.monotonic()
    clusters = {cluster.name: cluster for cluster in formation.members(lab)}
    for name in (one.join, one.to):
        if name not in clusters:
            raise LabError(f"refused names cluster {name!r}: there are {', '.join(clusters)}")
    problem = f"{one.join} joined {one.to}"
    try:
        formation.join(lab, host=clusters[one.to], guest=clusters[one.join])
    except LabError as error:
        problem = "" if re.search(one.says, str(error)) else str(error)
    return Outcome(
        name=f"{one.join} may not join {one.to}",
        problem=problem,
        seconds=time.monotonic() - began,
    )
