"""The stream between a client and a worker that is not its child: frames, both ways, over any two file descriptors.

    frame := u8 kind, u32 length, that many bytes; little-endian

The client begins with SETUP; the worker answers HELLO when it takes messages. Then, for each RUN, it answers any
number of DELIVER and one REPLY or REFUSED, before the client sends the next. STOP and PING may come at any time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum

HEAD = struct.Struct("<BI")
NUMBER = struct.Struct("<I")
MESSAGE = struct.Struct("<I?")


class Kind(IntEnum):
    """What a frame is."""

    # To the worker.
    SETUP = 1  # JSON: name (of the worker), environment (of the processes that run calls), show_output
    RUN = 2  # u32 number of the message, u8 whether some of its calls may be answered before the others, payload
    STOP = 3  # u32 number of the message, then u32 for each of its calls that is to be stopped
    PING = 4
    # From the worker.
    HELLO = 65  # JSON: python (its version)
    DELIVER = 66  # a reply about some of the calls; one about others follows
    REPLY = 67  # the reply about the rest
    REFUSED = 68  # JSON: text, reason, retryable: of an InvocationError
    PONG = 69


def pack(kind: Kind, body: bytes = b"") -> bytes:
    """One frame."""
    return HEAD.pack(kind, len(body)) + body


def read(receive: Callable[[int], bytes]) -> tuple[Kind, bytearray] | None:
    """Read one frame by ``receive(most)``, which returns at most so many bytes; ``None`` where the stream ends."""
    head = read_exactly(receive, HEAD.size)
    if head is None:
        return None
    kind, length = HEAD.unpack(head)
    body = read_exactly(receive, length)
    return None if body is None else (Kind(kind), body)


def read_exactly(receive: Callable[[int], bytes], size: int) -> bytearray | None:
    """Exactly so many bytes; ``None`` where the stream ends before."""
    data = bytearray()
    while len(data) < size:
        part = receive(size - len(data))
        if not part:
            return None
        data += part
    return data
