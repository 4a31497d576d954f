"""A server of every kind of client: HTTP on 8080, datagrams on 5300, iperf3 on 5201.

    python answerer.py NAME

Whoever asks is told the name, as often as it asks, in both families. HTTP is the last to be
served. Only the standard library: it runs wherever Python does.
"""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading

HTTP, ECHO, IPERF = 8080, 5300, 5201


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    """A connection stays for further requests."""

    def do_GET(self) -> None:
        body = f"{sys.argv[1]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


def echo(opened: socket.socket) -> None:
    while True:
        _, client = opened.recvfrom(2048)
        opened.sendto(sys.argv[1].encode(), client)


if __name__ == "__main__":
    subprocess.Popen(["iperf3", "--server", "--port", str(IPERF)], stdout=subprocess.DEVNULL)
    datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    datagrams.bind(("::", ECHO))
    threading.Thread(target=echo, args=(datagrams,), daemon=True).start()
    Server(("::", HTTP), Handler).serve_forever()
