"""How expectations went, and as JUnit tells it to CI."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

import attrs


@attrs.frozen(kw_only=True)
class Outcome:
    name: str
    problem: str = ""
    """Empty: it is as expected."""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.problem


def junit(lab: str, outcomes: Sequence[Outcome]) -> str:
    """The XML that CI systems read. Source: Apache Ant's JUnit report, as Jenkins takes it."""
    suite = ElementTree.Element(
        "testsuite",
        name=lab,
        tests=str(len(outcomes)),
        failures=str(len([one for one in outcomes if not one.ok])),
        errors="0",
        time=f"{sum(one.seconds for one in outcomes):.3f}",
    )
    for one in outcomes:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"lab.{lab}", name=one.name, time=f"{one.seconds:.3f}"
        )
        if not one.ok:
            ElementTree.SubElement(case, "failure", message=one.problem)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
