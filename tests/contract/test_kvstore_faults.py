"""What befalls a real etcd and its certificates, as EtcdKV tells it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshnet.errors import ConfigError, Denied, MeshnetError, Unreachable
from meshnet.kvstore import channel
from meshnet.kvstore.api import KeyValue, Put
from meshnet.kvstore.channel import ClientTls
from meshnet.kvstore.etcd import EtcdKV
from meshnet.pki.certificate import Profile
from tests.support.etcd import EtcdProcess, Pki, etcd, free_port

pytestmark = pytest.mark.etcd


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[EtcdProcess]:
    with etcd(tmp_path / "plain") as process:
        yield process


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EtcdProcess, Pki]]:
    directory = tmp_path_factory.mktemp("secured")
    pki = Pki.create(directory / "pki")
    with etcd(directory / "etcd", pki.issue("etcd", Profile.ETCD)) as process:
        yield process, pki


@contextlib.asynccontextmanager
async def opened(kv: EtcdKV) -> AsyncIterator[EtcdKV]:
    try:
        yield kv
    finally:
        await kv.close()


async def failure(kv: EtcdKV) -> MeshnetError:
    async with opened(kv):
        try:
            await kv.get("k")
        except MeshnetError as error:
            return error
    raise AssertionError("it answered")


def in_memory(tls: ClientTls) -> ClientTls:
    ca, cert, key = (Path(str(part)).read_bytes() for part in (tls.ca, tls.cert, tls.key))
    return ClientTls(ca=ca, cert=cert, key=key)


async def test_nobody_listening_is_told_as_refused() -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    error = await failure(EtcdKV([endpoint], None))
    assert isinstance(error, Unreachable)
    assert str(error) == f"etcd at {endpoint} is unreachable: connection refused: is it running?"


async def test_an_unknown_host_is_told() -> None:
    error = await failure(EtcdKV(["nosuch.invalid:2379"], None, server="gateway of east"))
    assert str(error) == "gateway of east at nosuch.invalid:2379 is unreachable: no such host"


async def test_a_wrong_ca_is_told(secured: tuple[EtcdProcess, Pki]) -> None:
    process, pki = secured
    other = Pki.create(pki.directory / "other")
    ours = pki.issue("n1", Profile.NODE)
    tls = ClientTls(ca=other.files("x").ca, cert=ours.cert, key=ours.key)
    error = await failure(EtcdKV([process.endpoint], tls))
    assert isinstance(error, Unreachable)
    assert str(error) == (
        f"etcd at {process.endpoint} is unreachable: TLS verification failed: our CA did not "
        "sign its certificate"
    )


async def test_a_certificate_for_another_address_is_told(
    secured: tuple[EtcdProcess, Pki],
) -> None:
    process, pki = secured
    error = await failure(EtcdKV([f"localhost:{process.port}"], pki.issue("n1", Profile.NODE)))
    assert str(error).endswith("TLS verification failed: its certificate is for another address")


@pytest.mark.parametrize("fault", ["expired", "foreign"])
async def test_a_client_certificate_that_etcd_refuses_is_told(
    secured: tuple[EtcdProcess, Pki], fault: str
) -> None:
    process, pki = secured
    if fault == "expired":
        tls = pki.issue("old", Profile.NODE, lifetime_s=-1)
    else:
        stranger = Pki.create(pki.directory / "stranger").issue("n1", Profile.NODE)
        tls = ClientTls(ca=pki.files("x").ca, cert=stranger.cert, key=stranger.key)
    error = await failure(EtcdKV([process.endpoint], tls))
    assert isinstance(error, Unreachable)
    assert str(error).endswith("is unreachable: it refused our client certificate")


async def test_a_key_that_is_not_the_certificates_is_told(
    secured: tuple[EtcdProcess, Pki],
) -> None:
    process, pki = secured
    one, other = pki.issue("n1", Profile.NODE), pki.issue("n2", Profile.NODE)
    tls = ClientTls(ca=one.ca, cert=one.cert, key=other.key)
    error = await failure(EtcdKV([process.endpoint], tls))
    assert str(error).endswith("our client certificate and its key do not fit together")


async def test_a_missing_certificate_file_is_named(secured: tuple[EtcdProcess, Pki]) -> None:
    process, pki = secured
    error = await failure(EtcdKV([process.endpoint], pki.files("nobody")))
    assert isinstance(error, ConfigError)
    assert str(
        error
    ) == f"{pki.directory}/nobody.crt cannot be read: No such file or directory" or (
        str(error) == f"{pki.directory}/nobody.key cannot be read: No such file or directory"
    )


def test_no_endpoint_at_all_is_a_fault_of_the_settings() -> None:
    with pytest.raises(ConfigError, match="no endpoint is given for etcd"):
        EtcdKV([], None)


async def test_pem_bytes_do_as_well_as_files(secured: tuple[EtcdProcess, Pki]) -> None:
    process, pki = secured
    files = pki.issue("n1", Profile.NODE)
    async with opened(EtcdKV([process.endpoint], in_memory(files))) as kv:
        assert await kv.revision() > 0


async def test_a_frozen_etcd_is_told_within_the_timeout(plain: EtcdProcess) -> None:
    async with opened(plain.kv(timeout_s=0.5)) as kv:
        await kv.put("k", b"")
        plain.freeze()
        began = time.monotonic()
        with pytest.raises(Unreachable, match="is unreachable: no answer in time"):
            await kv.put("k", b"")
        assert time.monotonic() - began < 1.5
        plain.thaw()
        assert (await kv.get("k")) is not None


async def test_a_mute_server_ends_a_watch_and_an_idle_one_does_not(plain: EtcdProcess) -> None:
    async with opened(plain.kv(sign_of_life_s=1.0)) as kv:
        start = await kv.put("k", b"")
        async with asyncio.timeout(10), contextlib.aclosing(kv.watch("k", after=start)) as watch:
            event = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(2.5)
            assert not event.done()
            plain.freeze()
            began = time.monotonic()
            with pytest.raises(Unreachable, match="it froze: no sign of life for 1 s"):
                await event
            assert time.monotonic() - began < 2.5
            plain.thaw()


async def test_a_killed_etcd_ends_a_watch_at_once(plain: EtcdProcess) -> None:
    async with opened(plain.kv()) as kv:
        start = await kv.put("k", b"")
        async with asyncio.timeout(5), contextlib.aclosing(kv.watch("k", after=start)) as watch:
            event = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0.2)
            plain.kill()
            with pytest.raises(Unreachable, match=r"etcd at .* is unreachable"):
                await event


async def test_the_next_endpoint_is_asked_when_one_is_gone(plain: EtcdProcess) -> None:
    gone = f"127.0.0.1:{free_port()}"
    async with opened(EtcdKV([gone, plain.endpoint], None)) as kv:
        revision = await kv.put("k", b"1")
        async with asyncio.timeout(5), contextlib.aclosing(kv.watch("k", after=revision)) as watch:
            await kv.put("k", b"2")
            batch = await anext(watch)
        assert isinstance(batch.events[0], KeyValue) and batch.events[0].value == b"2"


async def test_a_renewed_certificate_is_used_without_losing_an_event(
    secured: tuple[EtcdProcess, Pki], monkeypatch: pytest.MonkeyPatch
) -> None:
    process, pki = secured
    monkeypatch.setattr(channel, "RELOAD_CHECK_S", 0.0)
    tls = pki.issue("renewing", Profile.NODE)
    async with opened(EtcdKV([process.endpoint], tls, sign_of_life_s=1.0)) as kv:
        start = await kv.put("r/k", b"0")
        before = kv._connections._current
        seen = []
        async with asyncio.timeout(10), contextlib.aclosing(kv.watch("r/", after=start)) as watch:
            for value in (b"1", b"2", b"3"):
                pki.issue("renewing", Profile.NODE)
                await kv.put("r/k", value)
                batch = await anext(watch)
                seen += [event.value for event in batch.events if isinstance(event, KeyValue)]
        assert seen == [b"1", b"2", b"3"]
        assert kv._connections._current is not before
        assert before is not None and not before.users


async def test_a_listing_longer_than_a_message_is_paged(plain: EtcdProcess) -> None:
    async with opened(plain.kv()) as kv:
        for part in range(30):
            names = [f"big/{part:03}/{n:03}" for n in range(100)]
            await kv.txn([], [Put(name, b"x" * 2000) for name in names])
        listing = await kv.list("big/")
        assert len(listing.pairs) == 3000
        assert sum(len(pair.value) for pair in listing.pairs) > 4 << 20
        assert [pair.key for pair in listing.pairs] == sorted(pair.key for pair in listing.pairs)


async def test_pages_shrink_until_they_fit(
    plain: EtcdProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = [(name, 1 << 20 if "receive" in name else value) for name, value in channel.OPTIONS]
    monkeypatch.setattr(channel, "OPTIONS", options)
    async with opened(plain.kv()) as kv:
        for n in range(20):
            await kv.put(f"big/{n:02}", b"x" * 200_000)
        assert len((await kv.list("big/")).pairs) == 20


async def test_a_value_that_is_too_long_is_denied(plain: EtcdProcess) -> None:
    async with opened(plain.kv()) as kv:
        with pytest.raises(Denied, match=r"etcd at .* refused: request is too large"):
            await kv.put("k", b"x" * (1700 << 10))
