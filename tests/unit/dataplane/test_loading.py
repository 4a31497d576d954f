"""What can be decided about loading without a kernel."""

from __future__ import annotations

import errno
import os
import struct
from typing import NoReturn

import pytest

from meshnet.dataplane import abi, bpf, programs, schema
from meshnet.dataplane.loader import relocate
from meshnet.errors import CapabilityMissing, DatapathError, LayoutDrift

EXIT = bytes([0x95] + [0] * 7)


def load_map(number: int, kind: int = 1) -> bytes:
    """LD_IMM64 of a map (1) or of a map's value (2): two slots."""
    return struct.pack("<BBhi", 0x18, kind << 4 | 1, 0, number) + bytes(8)


def refusing(code: int) -> object:
    def call(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return call


def test_placeholders_become_file_descriptors() -> None:
    code = load_map(schema.PLACEHOLDER + 1) + load_map(schema.PLACEHOLDER, kind=2) + EXIT

    done = relocate(code, {schema.PLACEHOLDER: 5, schema.PLACEHOLDER + 1: 6})

    assert done == load_map(6) + load_map(5, kind=2) + EXIT


def test_a_constant_that_looks_like_a_placeholder_is_left_alone() -> None:
    code = load_map(schema.PLACEHOLDER, kind=0) + EXIT

    assert relocate(code, {schema.PLACEHOLDER: 5}) == code


def test_the_second_slot_of_a_load_is_no_instruction() -> None:
    """Its bytes are the upper half of a constant, and may look like anything."""
    upper = struct.pack("<BBhi", 0, 0, 0, 0x18)
    code = struct.pack("<BBhi", 0x18, 1, 0, 7) + upper + load_map(schema.PLACEHOLDER) + EXIT

    assert relocate(code, {schema.PLACEHOLDER: 5}).endswith(load_map(5) + EXIT)


def test_a_reference_to_an_unknown_map_is_refused() -> None:
    with pytest.raises(LayoutDrift, match="0x7f0000ff"):
        relocate(load_map(schema.PLACEHOLDER + 255), {})


def test_the_verifiers_verdict_is_the_last_telling_line() -> None:
    log = (
        "func#0 @0\n"
        "0: R1=ctx() R10=fp0\n"
        "7: (79) r3 = *(u64 *)(r1 +4096)\n"
        "invalid bpf_context access off=4096 size=8\n"
        "processed 8 insns (limit 1000000) max_states_per_insn 0\n"
    )

    assert programs.summarize(log) == (
        "invalid bpf_context access off=4096 size=8 (at 7: (79) r3 = *(u64 *)(r1 +4096))"
    )
    assert programs.summarize("") == "the verifier gave no reason"


def test_a_kernel_without_tcx_is_named_with_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "call", refusing(errno.EINVAL))

    with pytest.raises(CapabilityMissing, match=r"has no tcx links: Linux 6\.6 or newer"):
        programs.create_link(3, 2, programs.Attach.TCX_INGRESS)


def test_attaching_to_an_interface_that_went_is_not_a_missing_capability(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(programs, "call", refusing(errno.ENODEV))

    with pytest.raises(DatapathError, match="no interface 9"):
        programs.create_link(3, 9, programs.Attach.TCX_INGRESS)


def test_a_kernel_without_bpf_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf, "_syscall", refusing(errno.ENOSYS))
    spec = schema.schema(schema.Sizes.lab())[0]

    with pytest.raises(CapabilityMissing, match="no bpf"):
        bpf.Map.create(spec)


def test_a_machine_whose_system_calls_are_not_known_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "s390x")

    with pytest.raises(CapabilityMissing, match=r"bpf\(2\) on s390x: x86_64 or aarch64"):
        bpf.Map.create(schema.schema(schema.Sizes.lab())[0])


def test_the_schema_covers_what_the_headers_number() -> None:
    maps = {spec.name: spec for spec in schema.schema(schema.Sizes())}

    assert set(schema.STAGES) == set(abi.Stage) - {abi.Stage.COUNT}
    assert maps["drops"].max_entries == (max(abi.DropReason) + 1) * abi.Direction.COUNT
    assert maps["event_buckets"].max_entries == max(abi.DropReason) + 1
    assert maps["counters"].max_entries == max(abi.Counter)
