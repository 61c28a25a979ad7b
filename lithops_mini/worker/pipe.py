"""What a supervisor and its runner have in common: apart from what runs calls, which a supervisor need not import."""

from __future__ import annotations

import time
from struct import Struct

from lithops_mini import wire

# Of a message: its length, when what has not begun of it is to be given back, bytes there are for its outcomes.
HEAD = Struct("<QdQ")
ENDLESS = 1 << 62  # more bytes than there are
READY = b"R"
# What the bell says: there is something to read, or nothing more to wait for; a storage is being opened.
BELL, OPENING = b"!", b"O"

# Of a call's output the first and the last bytes are kept.
LOG_HEAD, LOG_TAIL = 16 << 10, 48 << 10


def shorten(head: bytes, tail: bytes, left_out: int) -> bytes:
    """A call's output without its middle."""
    return b"%b\n... %d bytes of output left out ...\n%b" % (head, left_out, tail)


def unstarted(call: wire.Call) -> wire.Outcome:
    """The outcome of a call that is given back."""
    return empty_outcome(call, wire.Status.UNSTARTED)


def empty_outcome(
    call: wire.Call, status: wire.Status, text: str = "", *, started: float = 0.0, log: bytes = b""
) -> wire.Outcome:
    """The outcome of a call that did not return, with a sentence that says why."""
    ended = time.time() if started else 0.0
    return wire.Outcome(
        call.id,
        call.attempt,
        status,
        wire.INLINE,
        cold=0,
        started=started,
        ended=ended,
        cpu_user=0.0,
        cpu_system=0.0,
        peak_memory=0,
        bytes_in=len(call.arguments),
        bytes_out=0,
        data_read=0,
        storage_puts=0,
        storage_gets=0,
        storage_deletes=0,
        log=log,
        data=text.encode(),
    )
