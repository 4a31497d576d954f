"""The newest drops, as the agent keeps and tells them."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from meshnet.agent import views
from meshnet.agent.api.routes import _drops
from meshnet.agent.api.server import Request
from meshnet.agent.events import DropEvents
from meshnet.dataplane.memory import MemoryDataplane
from meshnet.errors import UsageError


@pytest.fixture
def context() -> Any:
    dataplane = MemoryDataplane()
    for host in (11, 12, 13):
        dataplane.from_endpoint(7, ip_address(f"10.1.0.{host}"), ip_address("10.2.0.10"))
    return SimpleNamespace(dataplane=dataplane, events=DropEvents(dataplane))


def test_the_newest_come_last_and_no_more_than_asked_for(context: Any) -> None:
    told = views.drop_events(context, 2)

    assert [row["source"] for row in told] == ["10.1.0.12", "10.1.0.13"]
    assert told[0]["reason"] == "UNKNOWN_ENDPOINT"
    assert len(views.drop_events(context)) == 3


def test_a_count_has_the_reasons_text(context: Any) -> None:
    (row,) = views.drops(context)
    assert (row["packets"], row["text"]) == (
        3,
        "the interface it came from belongs to no endpoint",
    )


@pytest.mark.parametrize("last", ["0", "-1", "x", ""])
async def test_a_number_that_is_none_is_refused(context: Any, last: str) -> None:
    (route,) = [route for route in _drops(context) if route.path == "/v1/drops/events"]

    with pytest.raises(UsageError, match="is no number of events"):
        await route.handler(Request("GET", route.path, {"last": last}, None))
