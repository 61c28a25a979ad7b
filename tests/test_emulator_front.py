"""The HTTP server of the emulators."""

from __future__ import annotations

import socket
import struct
import threading

import pytest
from attempts import until

from lithops_mini.emulators.front import Front, Request, Response


def test_a_client_that_has_gone_is_no_mistake_of_the_server(capsys: pytest.CaptureFixture[str]) -> None:
    asked, gone = threading.Event(), threading.Event()

    def answer(request: Request) -> Response:
        asked.set()
        assert gone.wait(60)
        return Response(200, body=b"too late")

    front = Front(0, answer)
    threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05}).start()
    others = threading.active_count()
    with socket.create_connection(front.server_address[:2]) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert asked.wait(60)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing is a reset
    gone.set()
    until(lambda: threading.active_count() <= others, "the connection is closed")
    front.shutdown()
    front.server_close()
    assert capsys.readouterr().err == ""
