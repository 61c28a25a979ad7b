"""moto's services, as WSGI applications, behind the emulator's own front."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.types import WSGIApplication

from moto.moto_server.werkzeug_app import MotoRequestHandler

from lithops_mini.emulators.front import Connection, Request, Response


class MotoConnection(Connection, MotoRequestHandler):
    """A connection whose requests moto can be given."""


def call(application: WSGIApplication, request: Request) -> Response:
    """What a WSGI application answers."""
    started: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], _error: Any = None) -> Callable[[bytes], object]:
        started[:] = [int(status.split()[0]), headers]
        return lambda _data: None

    parts: Iterable[bytes] = application(request.environ | {"wsgi.input": io.BytesIO(request.body)}, start)
    try:
        body = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return Response(started[0], tuple(started[1]), body)
