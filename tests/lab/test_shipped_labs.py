"""Every lab that we ship comes up, is as its file expects, and goes: `make labs`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support.lab import LABS, lab_name, leftovers, meshnet

pytestmark = [pytest.mark.lab, pytest.mark.shipped]

FILES = sorted(LABS.glob("*.clab.yml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".clab.yml"))
def test_the_lab_is_as_its_file_expects(file: Path, tmp_path: Path) -> None:
    """Under a name of its own, so that it does not meet one that somebody plays with."""
    shutil.copytree(LABS, tmp_path / "labs")
    copy = tmp_path / "labs" / file.name
    name = f"{lab_name(file)[:12]}-{os.getpid()}"
    copy.write_text(re.sub(r"(?m)^name:.*$", f"name: {name}", copy.read_text(), count=1))
    try:
        done = meshnet("lab", "test", str(copy), timeout_s=240)
        print(done.stdout, done.stderr)
        assert done.returncode == 0, [
            line for line in done.stdout.splitlines() if not line.startswith("ok")
        ] or done.stderr
    finally:
        meshnet("lab", "down", name)
    assert leftovers(name) == []
