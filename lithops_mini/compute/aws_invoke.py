"""Invocations of functions of AWS Lambda, many at once, in half the time that the SDK's own method takes.

The request is the SDK's: signed, sent, and its errors read by botocore's own parts. What is left out is what a
client of the SDK does besides for each request: hooks, validation, retries.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.parsers import create_parser

from lithops_mini.errors import ConfigError

# Threads that send or read at a time, of all that have a request under way. More only take the interpreter from each
# other: thousands that want it at once keep the processor busy with asking.
ACTIVE = 128
_OTHERS = 200  # files that a process has open besides its connections
_BUFFER = 512  # bytes of a connection's buffer; large answers are read past it


class Invocations:
    """Sends requests by the connections of a client, made without retries. To be made before it has any."""

    def __init__(self, client: Any, credentials: Any) -> None:
        """``credentials``: botocore's, which may expire and be fetched again; ``None`` if there are none."""
        self._client = client
        self._credentials = credentials
        self._session = client._endpoint.http_session
        self._model = client.meta.service_model
        self._shape = self._model.operation_model("Invoke").output_shape
        self._parser = create_parser("rest-json")
        self._agent = client.meta.config.user_agent
        self._active = threading.Semaphore(ACTIVE)
        self._sending = threading.local()
        answer = type("Answer", (_Answer,), {"active": self._active, "sending": self._sending})
        # Classes of this session's own: botocore's are every client's.
        classes: dict[str, Any] = self._session._pool_classes_by_scheme
        for scheme, pool in classes.items():
            kind = type(pool.ConnectionCls.__name__, (pool.ConnectionCls,), {"response_class": answer})
            classes[scheme] = type(pool.__name__, (pool,), {"ConnectionCls": kind})

    def send(self, function: str, event: bytearray, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
        """Return the headers and the body of the answer. Raises errors of botocore, as the client's method does.

        The event is emptied once it was sent: each frame above has it, and the answer may take long.
        """
        with self._active:
            self._sending.event = event
            answer = self._session.send(self._request(function, event, headers))
            if answer.status_code >= 300:
                raise self._error(answer)
            return answer.headers, answer.content

    def _request(self, function: str, event: bytearray, headers: Mapping[str, str]) -> Any:
        url = f"{self._client.meta.endpoint_url}/2015-03-31/functions/{quote(function)}/invocations"
        request = AWSRequest("POST", url, headers={"User-Agent": self._agent, **headers}, data=event)
        frozen = self._credentials and self._credentials.get_frozen_credentials()
        SigV4Auth(frozen, self._model.signing_name, self._client.meta.region_name).add_auth(request)
        prepared: Any = request.prepare()
        prepared.headers = dict(prepared.headers)  # botocore's own mapping has a dozen objects for each
        return prepared

    def _error(self, answer: Any) -> Exception:
        said = {"headers": answer.headers, "status_code": answer.status_code, "body": answer.content}
        parsed = self._parser.parse(said, self._shape)
        error: Exception = self._client.exceptions.from_code(parsed["Error"]["Code"])(parsed, "Invoke")
        return error


def allow(connections: int) -> None:
    """Let this process have so many connections at once. ``ConfigError`` if the system does not."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    needed = connections + _OTHERS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{connections:,} invocations at once need as many connections, and this process may open {hard:,} files:"
            f" raise that limit (ulimit -n), or set aws_lambda.max_workers to at most {max(1, hard - _OTHERS):,}"
        ) from error


class _Answer(HTTPResponse):
    """One that others do not wait for: while it has not come, its thread is not active."""

    active: threading.Semaphore
    sending: threading.local

    def __init__(self, sock: Any, *args: Any, **keys: Any) -> None:
        super().__init__(sock, *args, **keys)
        self.fp.close()
        self.fp = sock.makefile("rb", _BUFFER)

    def begin(self) -> None:
        self.sending.event.clear()
        self.active.release()
        try:
            self.fp.peek(1)
        finally:
            self.active.acquire()
        super().begin()
