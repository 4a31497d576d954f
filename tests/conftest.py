"""What every test may rely on."""

from collections.abc import Iterator

import pytest
import structlog

import meshnet

assert meshnet.__version__, "imported before anything imports grpc: it sets grpc's environment"


@pytest.fixture(autouse=True)
def _log_settings_end_with_the_test() -> Iterator[None]:
    """A command run in process sets logging up for a stream that pytest closes afterwards."""
    yield
    structlog.reset_defaults()
