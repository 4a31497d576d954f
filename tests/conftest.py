"""What every test may rely on."""

from collections.abc import Iterator

import hypothesis
import pytest
import structlog
from hypothesis import settings

import meshnet

assert meshnet.__version__, "imported before anything imports grpc: it sets grpc's environment"

# how long one example takes says more of the machine than of the code
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


@pytest.fixture(autouse=True)
def _log_settings_end_with_the_test() -> Iterator[None]:
    """A command run in process sets logging up for a stream that pytest closes afterwards."""
    yield
    structlog.reset_defaults()


# How long an example takes says how busy the machine is, not whether the code is right.
settings.register_profile("meshnet", deadline=None)
settings.load_profile("meshnet")
