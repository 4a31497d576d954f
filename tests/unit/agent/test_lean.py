"""What the agent's process must not hold: asked in a process of its own."""

import subprocess
import sys

from meshnet.agent.lean import _as_in_its_file

UNWANTED = {
    "typer",
    "rich",
    "click",
    "bcc",
    "jsonschema",
    "yaml",
    "sqlite3",
    "netaddr",
    "hypothesis",
}
SCRIPT = """
from meshnet.agent import lean
lean.begin()
import meshnet.agent.service
import sys
print(*(name for name, module in sys.modules.items() if module is not None), sep="\\n")
"""


def test_the_agent_imports_nothing_it_does_not_use() -> None:
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    modules = run.stdout.split()
    assert "meshnet.agent.service" in modules
    assert UNWANTED.isdisjoint(name.partition(".")[0] for name in modules)
    assert not any(name.startswith(("pyroute2.ndb", "pyroute2.ipdb")) for name in modules)


def test_pages_given_back_are_there_again_when_used() -> None:
    """`give_back` drops mapped code: what runs next must run as before."""
    script = (
        "import hashlib, ssl, json\n"
        "from meshnet.agent import lean\n"
        "before = hashlib.sha256(b'x' * 100_000).hexdigest()\n"
        "lean.give_back()\n"
        "assert hashlib.sha256(b'x' * 100_000).hexdigest() == before\n"
        "ssl.create_default_context()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


SMAPS = """\
7f0000000000-7f0000001000 r--p 00000000 fe:00 77 /usr/lib/libx.so
Rss:                   4 kB
Anonymous:             0 kB
7f0000001000-7f0000002000 r-xp 00001000 fe:00 77 /usr/lib/libx.so
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00002000 fe:00 77 /usr/lib/libx.so
Anonymous:             4 kB
7f0000003000-7f0000004000 rw-p 00003000 fe:00 77 /usr/lib/libx.so
Anonymous:             0 kB
7f0000004000-7f0000005000 r--s 00000000 00:0e 12 anon_inode:bpf-map
Anonymous:             0 kB
7f0000005000-7f0000006000 r--p 00000000 00:00 0 [vvar]
Anonymous:             0 kB
"""


def test_only_what_is_as_in_its_file_is_given_back() -> None:
    """Relocated data, what may be written, maps of the kernel: all of it would be lost."""
    assert [first & 0xFFFF for first, _ in _as_in_its_file(SMAPS)] == [0, 0x1000]
