"""Label selectors, as Kubernetes writes them and with the sources that Cilium allows."""

from __future__ import annotations

from meshnet.errors import ConfigError
from meshnet.manifests.reader import Reader
from meshnet.model.identity import check_label
from meshnet.model.policy import Operator, Requirement, Selector

SOURCES = ("k8s:", "any:")
"""All labels of ours are `k8s:`, so both mean the same; `reserved:` is kept."""
_OPERATORS = {operator.value: operator for operator in Operator}


def read_selector(reader: Reader, *, sources: bool = False, prefix: str = "") -> Selector:
    """matchLabels and matchExpressions.

    Args:
        sources: keys may begin with a source, as Cilium's do.
        prefix: of the label that each key stands for.
    """
    found: set[Requirement] = set()
    fields = reader.fields()
    if labels := fields.take("matchLabels"):
        for name in labels.value if isinstance(labels.value, dict) else ():
            value = Reader(labels.value[name], f"{labels.path}.{name}", labels.faults)
            key = _key(value, name, sources)
            found.add(Requirement(prefix + key, Operator.IN, frozenset({_value(value, key)})))
        if labels.value is not None:
            labels.fields()
    if expressions := fields.take("matchExpressions"):
        for item in expressions.items():
            if (requirement := _expression(item, sources, prefix)) is not None:
                found.add(requirement)
    fields.close()
    return Selector(frozenset(found))


def _expression(reader: Reader, sources: bool, prefix: str) -> Requirement | None:
    fields = reader.fields()
    key, chosen, values = (
        fields.require("key"), fields.require("operator"), fields.take("values")
    )  # fmt: skip
    fields.close()
    if key is None or chosen is None:
        return None
    name = _key(key, key.text(), sources)
    operator = chosen.choice(_OPERATORS, Operator.EXISTS)
    given = frozenset(_value(item, name) for item in values.items()) if values else frozenset()
    wants = operator in (Operator.IN, Operator.NOT_IN)
    if wants and not given:
        reader.fault(f"operator {operator} needs values", show=False)
    if not wants and given:
        reader.fault(f"operator {operator} takes no values", show=False)
    return Requirement(prefix + name, operator, given)


def _key(reader: Reader, name: str, sources: bool) -> str:
    """The label's key without its source."""
    if sources:
        for source in SOURCES:
            name = name.removeprefix(source)
        if name.startswith("reserved:"):
            return name
        if ":" in name:
            reader.fault(f"label source of {name!r} is none of k8s, any, reserved", show=False)
            return name
    _check(reader, name, "")
    return name


def _value(reader: Reader, key: str) -> str:
    value = reader.text()
    if not key.startswith("reserved:"):
        _check(reader, "value", value)  # the key has had its own check
    return value


def _check(reader: Reader, key: str, value: str) -> None:
    try:
        check_label(key, value)
    except ConfigError as error:
        reader.fault(str(error), show=False)
