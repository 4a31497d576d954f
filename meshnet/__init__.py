"""meshnet: one flat, policed, load-balanced network over clusters of Linux hosts."""

__version__ = "0.1.0"
