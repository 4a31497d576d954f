"""meshnet: one flat, policed, load-balanced network over clusters of Linux hosts."""

import os

__version__ = "0.1.0"

# Before anything imports grpc, which reads it once: its own lines about failed handshakes
# tell an operator less than the errors that we raise for them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

# Nor do we speak gRPC in a forked child: its fork handlers would only start threads at the
# wrong moment (a fork into another PID namespace may not have any).
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
