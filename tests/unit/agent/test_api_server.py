"""The local API's transport, over a real UNIX socket."""

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from meshnet.agent.api.server import ApiServer, Request, Route
from meshnet.errors import AlreadyExists, NotFound, UsageError
from meshnet.kvstore.channel import Connections, NeverSent


async def _show(request: Request) -> Any:
    if request.params["name"] == "nobody":
        raise NotFound("no endpoint default/nobody")
    if request.params["name"] == "bug":
        raise KeyError("bug")
    if (server := request.params["name"]) in ("etcd", "gateway"):
        connections = Connections(["h:1"], None, server=server)
        async with connections.borrow() as connection:
            raise connections.unreachable(connection, "connection refused", NeverSent)
    return {"name": request.params["name"], "scope": request.query.get("scope")}


async def _create(request: Request) -> Any:
    if request.field("name") == "taken":
        raise AlreadyExists("endpoint default/taken is taken")
    return {"got": request.body}


ROUTES = [Route("GET", "/v1/endpoints/{name}", _show), Route("POST", "/v1/endpoints", _create)]


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Path]:
    task = asyncio.create_task(ApiServer(path, ROUTES).run())
    try:
        async with asyncio.timeout(5):
            while not path.exists():
                await asyncio.sleep(0.001)
        yield path
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ask(path: Path, method: str, target: str, body: bytes = b"") -> tuple[int, Any]:
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_unix_connection(path)
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status_line = await reader.readline()
        length = 0
        while (line := await reader.readline()) != b"\r\n":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        answer = json.loads(await reader.readexactly(length))
        writer.close()
    return int(status_line.split()[1]), answer


async def test_path_parameters_and_query_reach_the_handler_decoded(tmp_path: Path) -> None:
    async with serving(tmp_path / "agent.sock") as path:
        status, answer = await ask(path, "GET", "/v1/endpoints/a%2Fb?scope=mesh")
    assert (status, answer) == (200, {"name": "a/b", "scope": "mesh"})


async def test_a_refusal_keeps_its_class_message_and_exit_code(tmp_path: Path) -> None:
    async with serving(tmp_path / "agent.sock") as path:
        missing = await ask(path, "GET", "/v1/endpoints/nobody")
        taken = await ask(path, "POST", "/v1/endpoints", b'{"name": "taken"}')
    told = {"type": "NotFound", "message": "no endpoint default/nobody", "exit_code": 4}
    assert missing == (404, {"error": told})
    told = {"type": "AlreadyExists", "message": "endpoint default/taken is taken", "exit_code": 1}
    assert taken == (409, {"error": told})


async def test_that_etcd_is_away_is_told_apart_from_another_servers_absence(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path / "agent.sock") as path:
        own = await ask(path, "GET", "/v1/endpoints/etcd")
        other = await ask(path, "GET", "/v1/endpoints/gateway")
    assert own[1]["error"] == {
        "type": "NeverSent",
        "message": "etcd at h:1 is unreachable: connection refused",
        "exit_code": 5,
        "own_etcd": True,
    }
    assert (own[0], "own_etcd" in other[1]["error"]) == (503, False)


async def test_bad_requests_are_told_what_is_wrong(tmp_path: Path) -> None:
    async with serving(tmp_path / "agent.sock") as path:
        not_json = await ask(path, "POST", "/v1/endpoints", b"{")
        no_name = await ask(path, "POST", "/v1/endpoints", b"{}")
        no_route = await ask(path, "GET", "/v2/nothing")
    assert not_json[0] == 400
    assert not_json[1]["error"]["message"].startswith("the request's body is not JSON")
    message = "POST /v1/endpoints: field 'name' is missing in the body"
    assert no_name[1]["error"] == {"type": "UsageError", "message": message, "exit_code": 2}
    message = "the agent has no GET /v2/nothing; is it older than this command?"
    assert no_route[1]["error"]["message"] == message


async def test_a_bug_in_a_handler_is_an_answer_and_the_server_lives_on(tmp_path: Path) -> None:
    async with serving(tmp_path / "agent.sock") as path:
        status, answer = await ask(path, "GET", "/v1/endpoints/bug")
        assert status == 500
        assert "see its log" in answer["error"]["message"]
        assert (await ask(path, "GET", "/v1/endpoints/web"))[0] == 200


async def test_what_is_no_http_does_not_end_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path / "agent.sock") as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"\x16\x03\x01 no http\r\n\r\n")
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        assert (await ask(path, "GET", "/v1/endpoints/web"))[0] == 200


async def test_others_than_owner_and_group_cannot_open_the_socket(tmp_path: Path) -> None:
    async with serving(tmp_path / "agent.sock") as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


@attrs.frozen
class Wanted:
    name: str
    labels: dict[str, str] = attrs.field(factory=dict)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "required field missing @ body.name"),
        ({"name": "web", "labels": 5}, "body.labels"),
        ({"name": "web", "colour": "red"}, "extra fields found"),
        (None, "no JSON object"),
        ([], "no JSON object"),
    ],
)
def test_a_body_of_the_wrong_shape_is_told_where_it_is_wrong(body: Any, told: str) -> None:
    request = Request("POST", "/v1/endpoints", {}, body)
    with pytest.raises(UsageError, match=f"^POST /v1/endpoints: .*{told}"):
        request.structured(Wanted)
