"""Maps, generations and links: all pinned, all adopted by the next agent.

    <bpf>/maps/NAME              maps that outlive programs
    <bpf>/gen-DIGEST/            one generation: its programs, `config` and `stages`
    <bpf>/links/PROGRAM[-N]      what is attached; N is the ifindex of an endpoint's veth

A generation is named by everything that decides its behaviour: the bytecode, the node's
constants, and which maps it uses. So "is it loaded?" is "does the directory exist?". The
rename from its temporary name is the commit; links are swapped one by one and atomically,
the old directory goes last. Killed after any step, the next start finishes the work.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import attrs
import structlog

from meshnet.dataplane import bpf, programs
from meshnet.dataplane.artifact import Artifact
from meshnet.dataplane.bpf import Map
from meshnet.dataplane.schema import PLACEHOLDER, PROGRAMS, STAGES, MapSpec, MapType, Sizes, schema
from meshnet.errors import CapabilityMissing, LayoutDrift

_LOAD_IMMEDIATE = 0x18
"""BPF_LD | BPF_IMM | BPF_DW: the one instruction of two slots, and the only one with a map."""
_COPIED = (MapType.HASH, MapType.LPM_TRIE, MapType.ARRAY, MapType.LRU_HASH)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CapabilityMissing(
            f"{directory} cannot be made ({error.strerror}): mount a bpf file system with "
            "`mount -t bpf bpf /sys/fs/bpf` and run as root"
        ) from error
    bpf.check_file_system(directory)


class MapSet:
    """The maps that outlive programs. One of another shape is replaced, never reused.

    The replacement is pinned by `commit`, once programs use it: until then the old pin and
    the old programs stay as they are.
    """

    def __init__(self, directory: Path, sizes: Sizes) -> None:
        self._directory = directory / "maps"
        self._drifted: list[str] = []
        self.maps: dict[str, Map] = {}
        _make(self._directory)
        for spec in schema(sizes):
            if not spec.per_generation:
                self.maps[spec.name] = self._open(spec)

    def _open(self, spec: MapSpec) -> Map:
        path = self._directory / spec.name
        fd = bpf.open_pin(path)
        if fd is None:
            made = Map.create(spec)
            bpf.pin(made.fd, path)
            return made
        found = Map(fd, spec)
        if found.shape == spec.shape:
            return found
        return self._replace(found, spec)

    def _replace(self, found: Map, spec: MapSpec) -> Map:
        """A fresh map, with the rows of the old one where they still mean the same."""
        shape = found.shape
        same_rows = shape[:3] == spec.shape[:3] and spec.type in _COPIED
        drift = LayoutDrift(
            f"pinned map {spec.name!r} has shape {shape} and this version needs {spec.shape} "
            f"(type, key, value, entries, flags): it is replaced, "
            f"{'its rows are copied' if same_rows else 'the agent writes its rows again'}"
        )
        structlog.get_logger().warning("map replaced", error=str(drift))
        made = Map.create(spec)
        if same_rows:
            made.update_many(found.items())
        found.close()
        self._drifted.append(spec.name)
        return made

    def commit(self) -> None:
        """From now on the pins are the maps that the programs use."""
        for name in self._drifted:
            path = self._directory / name
            path.unlink()
            bpf.pin(self.maps[name].fd, path)
        self._drifted.clear()

    def close(self) -> None:
        for opened in self.maps.values():
            opened.close()


def relocate(instructions: bytes, fds: Mapping[int, int]) -> bytes:
    """Put file descriptors where the compiler left placeholder numbers.

    Map references have source register 1 (the map) or 2 (its value, for `config`).
    Raises LayoutDrift for a number that stands for no map.
    """
    code, offset = bytearray(instructions), 0
    while offset < len(code):
        if code[offset] != _LOAD_IMMEDIATE:
            offset += 8
            continue
        if code[offset + 1] >> 4 in (1, 2):
            (number,) = struct.unpack_from("<i", code, offset + 4)
            if number not in fds:
                raise LayoutDrift(f"the bytecode refers to a map {number:#x} that no schema has")
            struct.pack_into("<i", code, offset + 4, fds[number])
        offset += 16
    return bytes(code)


@attrs.frozen
class Generation:
    """Loaded programs, by name. Owns their descriptors."""

    directory: Path
    programs: dict[str, int]

    def close(self) -> None:
        for fd in self.programs.values():
            os.close(fd)


def load_generation(
    directory: Path, artifact: Artifact, maps: Mapping[str, Map], config: bytes, sizes: Sizes
) -> Generation:
    """The generation for these inputs: adopted when it is pinned, else loaded whole.

    Raises:
        VerifierRejected: a program; nothing of the new generation stays.
    """
    digest = sha256(config)
    for name in PROGRAMS:
        digest.update(artifact.programs[name])
    for name, opened in sorted(maps.items()):
        digest.update(f"{name} {opened.id}\n".encode())
    pinned = directory / f"gen-{digest.hexdigest()[:16]}"
    if adopted := _adopt(pinned):
        return adopted

    loading = directory / f"{pinned.name}-loading"
    shutil.rmtree(loading, ignore_errors=True)
    _make(loading)
    try:
        generation = _load(loading, artifact, maps, config, sizes)
    except BaseException:
        shutil.rmtree(loading, ignore_errors=True)
        raise
    loading.rename(pinned)
    structlog.get_logger().info("dataplane loaded", path=str(pinned))
    return attrs.evolve(generation, directory=pinned)


def _adopt(pinned: Path) -> Generation | None:
    """What is pinned there, if all of it is; the rest of one half removed goes."""
    found = Generation(
        pinned, {name: fd for name in PROGRAMS if (fd := bpf.open_pin(pinned / name)) is not None}
    )
    if len(found.programs) == len(PROGRAMS):
        return found
    found.close()
    shutil.rmtree(pinned, ignore_errors=True)
    return None


def _load(
    loading: Path, artifact: Artifact, maps: Mapping[str, Map], config: bytes, sizes: Sizes
) -> Generation:
    own = {spec.name: Map.create(spec) for spec in schema(sizes) if spec.per_generation}
    own["config"].update(bytes(4), config)
    own["config"].freeze()
    every = {**maps, **own}
    fds = {PLACEHOLDER + place: every[spec.name].fd for place, spec in enumerate(schema(sizes))}
    loaded: dict[str, int] = {}
    try:
        for name in PROGRAMS:
            loaded[name] = programs.load_program(name, relocate(artifact.programs[name], fds))
            bpf.pin(loaded[name], loading / name)
        for stage, name in STAGES.items():
            own["stages"].update(struct.pack("=I", stage), struct.pack("=I", loaded[name]))
        for name, opened in own.items():
            bpf.pin(opened.fd, loading / name)
    except BaseException:
        Generation(loading, loaded).close()
        raise
    finally:
        for opened in own.values():
            opened.close()
    return Generation(loading, loaded)


class Links:
    """What is attached where, by pinned tcx links in the current network namespace."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "links"
        _make(self._directory)

    def names(self) -> list[str]:
        return sorted(path.name for path in self._directory.iterdir())

    def attach(self, name: str, program: int, ifindex: int, attach: programs.Attach) -> None:
        """Make `name` run `program` on an interface; repeating it changes nothing."""
        if not self._follows(name, program, ifindex):
            self._pin(name, programs.create_link(program, ifindex, attach))

    def attach_cgroup(self, name: str, program: int, cgroup: Path, attach: programs.Attach) -> None:
        """The same for the sockets of a cgroup."""
        if not self._follows(name, program, cgroup.stat().st_ino & 0xFFFFFFFF):
            self._pin(name, programs.create_cgroup_link(program, cgroup, attach))

    def _follows(self, name: str, program: int, target: int) -> bool:
        """Whether there is such a link; it then runs `program`. One of an interface or cgroup
        that is gone, or not the node's any more, goes."""
        path = self._directory / name
        fd = bpf.open_pin(path)
        if fd is None:
            return False
        try:
            info = programs.link_info(fd)
            if info.target == target and info.program_id != programs.program_id(program):
                programs.update_link(fd, program)
        finally:
            os.close(fd)
        if info.target != target:
            path.unlink()
        return info.target == target

    def _pin(self, name: str, link: int) -> None:
        try:
            bpf.pin(link, self._directory / name)
        finally:
            os.close(link)

    def detach(self, name: str) -> None:
        """What is absent is not an error."""
        (self._directory / name).unlink(missing_ok=True)

    def swap(self, loaded: Mapping[str, int]) -> None:
        """Every link to its program of this generation; dead ones are taken away."""
        for name in self.names():
            program = loaded.get(name.partition("-")[0])
            fd = bpf.open_pin(self._directory / name)
            if fd is None:
                continue
            try:
                info = programs.link_info(fd)
                if program is None or not info.target:
                    self.detach(name)
                elif info.program_id != programs.program_id(program):
                    programs.update_link(fd, program)
            finally:
                os.close(fd)


def remove_generations(directory: Path, keep: Path | None) -> None:
    """Unpin what no link uses any more."""
    for path in directory.glob("gen-*"):
        if path != keep:
            shutil.rmtree(path)
