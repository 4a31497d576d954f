"""The artifact: the bytecode of every program, ready to be relocated and loaded.

Named by the digest of what a node can compute without a compiler: the C sources, the
flags, the schema. Which BCC and LLVM made it is recorded inside. A node looks for it
    1. in the package (`meshnet/dataplane/artifacts/`, where a wheel carries it),
    2. in the cache (/var/cache/meshnet),
    3. and compiles into the cache as a last resort, which needs python3-bpfcc.
Where the sources are not installed, the package's one artifact is taken if it was made for
this version's maps and layouts.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import attrs
import structlog

from meshnet.dataplane import schema
from meshnet.errors import CapabilityMissing, CompileFailed, LayoutDrift

SOURCE = Path(__file__).resolve().parents[2] / "bpf"
SHIPPED = Path(__file__).with_name("artifacts")
CACHE = Path("/var/cache/meshnet")

FLAGS = (
    "-Werror=implicit-function-declaration",
    "-Wno-unused-function",
    "-Wno-incompatible-pointer-types-discards-qualifiers",  # BCC's helpers take no const
)
FORMAT = 1
COMPILE_TIMEOUT_S = 120


@attrs.frozen
class Artifact:
    digest: str
    """Of the sources it was made from."""
    programs: dict[str, bytes]
    """Name -> instructions, map references as placeholder numbers."""
    compiler: dict[str, str]


def source_digest(source: Path = SOURCE) -> str | None:
    """Of everything that decides the bytecode; None where no sources are installed. 2 ms."""
    files = sorted(path for path in source.rglob("*.[ch]") if path.is_file())
    if not files:
        return None
    digest = sha256(f"{FORMAT} {FLAGS} {schema.digest()}\n".encode())
    for path in files:
        text = path.read_bytes()
        digest.update(f"{path.relative_to(source)} {len(text)}\n".encode() + text)
    return digest.hexdigest()


def file_name(digest: str) -> str:
    return f"programs-{digest[:16]}.json"


def write(path: Path, artifact: Artifact) -> None:
    """Whole or not at all: two nodes of one lab may compile at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {
        "format": FORMAT,
        "source": artifact.digest,
        "schema": schema.digest(),
        "compiler": artifact.compiler,
        "programs": {
            name: base64.b64encode(code).decode() for name, code in artifact.programs.items()
        },
    }
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(body, indent=1))
    temporary.replace(path)


def read(path: Path) -> Artifact:
    """Raises LayoutDrift when it was made for other maps or layouts than this version's."""
    body: dict[str, Any] = json.loads(path.read_text())
    if body.get("format") != FORMAT or body.get("schema") != schema.digest():
        raise LayoutDrift(
            f"{path} was made for another version of meshnet: install this version's wheel, or "
            "run `make bytecode` in its source tree"
        )
    programs = {name: base64.b64decode(code) for name, code in body["programs"].items()}
    return Artifact(body["source"], programs, body["compiler"])


def find(cache: Path = CACHE, *, shipped: Path = SHIPPED, source: Path = SOURCE) -> Artifact:
    """The artifact for this version, compiled only when nobody did so before.

    Raises:
        CapabilityMissing: it must be compiled, and BCC is not installed.
        CompileFailed: the C does not compile.
        LayoutDrift: the package carries an artifact of another version, and no sources.
    """
    digest = source_digest(source)
    if digest is None:
        return read(_only(shipped))
    for directory in (shipped, cache):
        path = directory / file_name(digest)
        if path.exists():
            return read(path)
    return read(produce(cache, source))


def _only(shipped: Path) -> Path:
    found = sorted(shipped.glob("programs-*.json"))
    if len(found) != 1:
        raise CapabilityMissing(
            f"{shipped} has {len(found)} artifacts instead of one, and there are no sources to "
            "compile: install meshnet again"
        )
    return found[0]


def produce(directory: Path, source: Path = SOURCE) -> Path:
    """Compile in a child process, 3 s and 130 MB that are gone afterwards."""
    structlog.get_logger().info("compiling the dataplane", path=str(directory))
    done = subprocess.run(
        [sys.executable, "-m", "meshnet.dataplane.compiler", str(directory), str(source)],
        capture_output=True,
        text=True,
        timeout=COMPILE_TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        return Path(done.stdout.strip().splitlines()[-1])
    if "No module named 'bcc'" in done.stderr:
        raise CapabilityMissing(
            "the dataplane must be compiled once, and BCC is not installed: "
            "`apt install python3-bpfcc`, with a virtual environment that sees system packages"
        )
    lines = done.stderr.splitlines()
    stage = [line.split()[1] for line in lines if line.startswith("compiling ")]
    summary = next((line for line in lines if "error" in line), f"exit status {done.returncode}")
    raise CompileFailed(stage[-1] if stage else "*.c", summary.strip(), done.stderr)
