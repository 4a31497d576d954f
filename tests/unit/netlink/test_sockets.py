"""What keeps sock_diag from being asked at all is told as any other refusal of the kernel."""

from __future__ import annotations

import errno
import os
import socket
from typing import NoReturn

import pytest

from meshnet.errors import NetlinkRefused
from meshnet.netlink import sockets


def no_descriptors(*_: object) -> NoReturn:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.mark.parametrize(
    ("netns", "module", "call", "request_"),
    [
        (None, socket, "socket", "datagram sockets by sock_diag"),
        ("/run/netns/any", os, "open", "open namespace /run/netns/any"),
    ],
)
async def test_too_many_open_files_are_a_refusal(
    netns: str | None,
    module: object,
    call: str,
    request_: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, call, no_descriptors)
        with pytest.raises(NetlinkRefused, match=f"{request_}: Too many open files") as refused:
            await sockets.destroy_datagram(netns, {})
    assert refused.value.errno == errno.EMFILE
