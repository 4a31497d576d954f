"""What the agent's process must not hold: asked in a process of its own."""

import subprocess
import sys

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
