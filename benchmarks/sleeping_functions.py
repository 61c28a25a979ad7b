"""AWS Lambda whose sandboxes sleep until so many are there; then each answers, in the order in which they came.

`python sleeping_functions.py URL CALLS` prints the port it listens on. URL is an emulator's, which gets all requests
that invoke nothing; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are keys to it. Messages are run by the worker that
functions have, in one process for all.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from botocore.session import Session

from lithops_mini.worker.aws_lambda import SEAL, Worker

_BACKLOG = 4096  # connections that wait to be accepted
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Awake:
    """What Lambda tells of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        return 900_000


class Service:
    """All sandboxes wake when there are ``calls`` of them."""

    def __init__(self, url: str, calls: int) -> None:
        self._url = url
        self._upstream = urlsplit(url)
        self._calls = calls
        self._asleep = 0
        self._all_there = asyncio.Event()
        self._one = ThreadPoolExecutor(1)
        self._worker = Worker()
        self._events: set[asyncio.Task[bytes]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        while head := await _head(reader):
            if b"Expect:" in head:
                writer.write(_CONTINUE)
            body = await reader.readexactly(_length(head))
            method, path, _ = head.split(b" ", 2)
            if method != b"POST" or not path.endswith(b"/invocations"):
                writer.write(await self._pass_on(head, body))
                continue
            answer = asyncio.create_task(self._invoke(path.decode().split("/")[3], body))
            if b"X-Amz-Invocation-Type: Event" in head:
                self._events.add(answer)
                writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
            else:
                said = await answer
                head = (
                    f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(said)}\r\n\r\n".encode()
                )
                writer.write(head + said)
        writer.close()

    async def _invoke(self, function: str, event: bytes) -> bytes:
        self._asleep += 1
        if self._asleep == self._calls:
            self._asleep = 0
            self._all_there.set()
            self._all_there = asyncio.Event()
        else:
            await self._all_there.wait()
        return await asyncio.get_running_loop().run_in_executor(self._one, self._run, function, event)

    def _run(self, function: str, event: bytes) -> bytes:
        message = json.loads(event)
        if "sealed" in message and SEAL not in os.environ:
            client = Session().create_client("lambda", region_name="us-east-1", endpoint_url=self._url)
            found = client.get_function_configuration(FunctionName=function)
            os.environ[SEAL] = found["Environment"]["Variables"][SEAL]
        return json.dumps(self._worker(message, Awake())).encode()

    async def _pass_on(self, head: bytes, body: bytes) -> bytes:
        """The emulator's answer; the signature is of the same bytes."""
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        writer.write(b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(b"Expect:")) + body)
        answer = await _head(reader)
        bodiless = head.startswith(b"HEAD ") or answer.split(None, 2)[1] in (b"204", b"304")
        said = b"" if bodiless else await reader.readexactly(_length(answer))
        writer.close()
        return answer + said


async def _head(reader: asyncio.StreamReader) -> bytes:
    """What comes before the body; empty at the end."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


async def main(url: str, calls: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    server = await asyncio.start_server(Service(url, calls).serve, "127.0.0.1", 0, backlog=_BACKLOG)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
