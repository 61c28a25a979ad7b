"""The bytes of messages: client to worker (payload), worker to client (reply). Little-endian, no pickle outside blobs.

    payload := u32 header length, u32 code length, u32 number of calls, header (JSON), code, call*
    call    := u32 id, u16 attempt, u8 stored, u32 dependencies length, u64 arguments length, dependencies, arguments
    reply   := u16 length, worker id (UTF-8), outcome*
    outcome := the fields of OUTCOME, log, data

``stored`` (in an outcome ``place``) says which of the bytes are a ``Stored`` reference instead of the thing itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from lithops_mini.errors import IntegrityError
from lithops_mini.records import Requests

VERSION = 3
INLINE, STORED = 0, 1
STORED_ARGUMENTS, STORED_DEPENDENCIES = 1, 2
SIGNATURE_SIZE = hashlib.sha256().digest_size
_NONCE_SIZE = 16


class Status(IntEnum):
    """How an attempt of a call ended."""

    OK = 0
    ERROR = 1  # the function raised
    DIED = 2
    TIMEOUT = 3
    OUT_OF_MEMORY = 4
    CANCELLED = 5
    UNSTARTED = 6  # given back: it was behind others and did not run
    UNAVAILABLE = 7  # the worker could not fetch or store what the call needs


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes ``[start, stop)`` of an object in the job's bucket; ``sha256`` is empty for signed objects."""

    key: str
    start: int
    stop: int
    sha256: str = ""

    def encode(self) -> bytes:
        return json.dumps([self.key, self.start, self.stop, self.sha256]).encode()

    @classmethod
    def decode(cls, data: bytes | memoryview) -> Stored:
        return cls(*json.loads(bytes(data)))


def sign(key: bytes, name: str, *parts: bytes | bytearray | memoryview) -> bytes:
    """HMAC-SHA256 of the object's name and bytes: a valid object moved to another name is not valid there."""
    mac = hmac.new(key, name.encode() + b"\0", hashlib.sha256)
    for part in parts:
        mac.update(part)
    return mac.digest()


def verify(key: bytes, name: str, signed: bytes | bytearray | memoryview) -> memoryview:
    """Return the bytes before the signature, or raise ``IntegrityError``."""
    view = memoryview(signed)
    data, signature = view[:-SIGNATURE_SIZE], view[-SIGNATURE_SIZE:]
    if len(view) < SIGNATURE_SIZE or not hmac.compare_digest(sign(key, name, data), signature):
        raise IntegrityError(f"the signature of {name!r} is not valid: somebody else wrote or changed this object")
    return data


def check_digest(sha256: str, what: str, data: bytes | bytearray | memoryview) -> None:
    """Raise ``IntegrityError`` unless the bytes have this SHA-256."""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise IntegrityError(f"{what} does not have the digest it was staged with: it was changed in storage")


def seal(key: bytes, text: str) -> str:
    """Make a text unreadable to whoever does not have the job's key; one text for each key. ``unseal`` undoes it.

    The text is combined with SHAKE-256 of the key as a stream cipher. By itself it is not protected against change:
    what it is put into is signed.
    """
    return _mask(key, text.encode()).hex()


def unseal(key: bytes, sealed: str) -> str:
    return _mask(key, bytes.fromhex(sealed)).decode()


def _mask(key: bytes, data: bytes) -> bytes:
    stream = hashlib.shake_256(b"seal\0" + key).digest(len(data))
    return (int.from_bytes(data, "little") ^ int.from_bytes(stream, "little")).to_bytes(len(data), "little")


def encrypt(key: bytes, data: bytes) -> bytes:
    """Make bytes unreadable, and unchangeable, to whoever does not have the key; as many as there are."""
    nonce = os.urandom(_NONCE_SIZE)
    hidden = nonce + _mask(nonce + key, data)
    return hidden + sign(key, "encrypted", hidden)


def decrypt(key: bytes, encrypted: bytes) -> bytes:
    """What ``encrypt`` was given. Raises ``IntegrityError`` if it has another key, or was changed."""
    hidden = bytes(verify(key, "encrypted", encrypted))
    return _mask(hidden[:_NONCE_SIZE] + key, hidden[_NONCE_SIZE:])


_PAYLOAD = struct.Struct("<III")
_CALL = struct.Struct("<IHBIQ")


class Call(NamedTuple):
    """One call of a payload."""

    id: int
    attempt: int
    stored: int
    dependencies: bytes | memoryview
    arguments: bytes | memoryview


def encode_header(header: dict[str, Any]) -> bytes:
    return json.dumps(header, separators=(",", ":")).encode()


def encode_payload(header: bytes, code: bytes, calls: list[Call]) -> bytes:
    parts: list[bytes | memoryview] = [_PAYLOAD.pack(len(header), len(code), len(calls)), header, code]
    pack = _CALL.pack
    for number, attempt, stored, dependencies, arguments in calls:
        parts += (pack(number, attempt, stored, len(dependencies), len(arguments)), dependencies, arguments)
    return b"".join(parts)


CALL_OVERHEAD = _CALL.size


def split_payload(payload: bytes | bytearray | memoryview) -> tuple[bytes, memoryview, memoryview]:
    """Return header, code and the calls' bytes."""
    view = memoryview(payload)
    header_size, code_size, _ = _PAYLOAD.unpack_from(view)
    code_start = _PAYLOAD.size + header_size
    return (
        bytes(view[_PAYLOAD.size : code_start]),
        view[code_start : code_start + code_size],
        view[code_start + code_size :],
    )


def count_calls(payload: bytes | bytearray | memoryview) -> int:
    """Return how many calls a payload has, without reading them."""
    return int(_PAYLOAD.unpack_from(payload)[2])


def iter_calls(calls: memoryview) -> Iterator[Call]:
    position, end, unpack, size = 0, len(calls), _CALL.unpack_from, _CALL.size
    while position < end:
        number, attempt, stored, n_dependencies, n_arguments = unpack(calls, position)
        position += size
        middle = position + n_dependencies
        stop = middle + n_arguments
        yield Call(number, attempt, stored, calls[position:middle], calls[middle:stop])
        position = stop


_OUTCOME = struct.Struct("<IHBBBddffQQQQIIIIQ")


class Outcome(NamedTuple):
    """One attempt's end. ``data``: the pickled value (OK), the pickled failure (ERROR), else a sentence in UTF-8."""

    call: int
    attempt: int
    status: int
    place: int
    cold: int
    started: float  # seconds since the epoch on the worker; 0.0 if it did not start
    ended: float
    cpu_user: float  # seconds
    cpu_system: float
    peak_memory: int  # bytes
    bytes_in: int
    bytes_out: int
    data_read: int  # bytes of its partitions
    storage_puts: int  # requests sent to storage: see Requests
    storage_gets: int
    storage_deletes: int
    log: bytes | memoryview
    data: bytes | memoryview

    @property
    def requests(self) -> Requests:
        return Requests(self.storage_puts, self.storage_gets, self.storage_deletes)

    def after(self, earlier: Requests) -> Outcome:
        """The same with the requests of earlier attempts added to its own."""
        puts, gets, deletes = self.requests.plus(earlier)
        return self._replace(storage_puts=puts, storage_gets=gets, storage_deletes=deletes)


OUTCOME_OVERHEAD = _OUTCOME.size


def encode_outcome(outcome: Outcome) -> bytes:
    *fields, log, data = outcome
    return b"".join((_OUTCOME.pack(*fields, len(log), len(data)), log, data))


def encode_reply(worker_id: str, outcomes: bytes) -> bytes:
    name = worker_id.encode()
    return struct.pack("<H", len(name)) + name + outcomes


def split_reply(reply: bytes | memoryview) -> tuple[str, memoryview]:
    view = memoryview(reply)
    (size,) = struct.unpack_from("<H", view)
    return str(view[2 : 2 + size], "utf-8"), view[2 + size :]


_OUTCOME_SIZES = struct.Struct("<IQ")  # the last two fields of OUTCOME


def iter_frame_ends(data: bytes | bytearray | memoryview, position: int = 0) -> Iterator[int]:
    """Yield where each whole outcome of ``data`` ends, without reading the outcomes."""
    end, unpack = len(data), _OUTCOME_SIZES.unpack_from
    sizes_at = _OUTCOME.size - _OUTCOME_SIZES.size
    while position + _OUTCOME.size <= end:
        n_log, n_data = unpack(data, position + sizes_at)
        position += _OUTCOME.size + n_log + n_data
        if position > end:
            return
        yield position


def iter_outcomes(data: bytes | bytearray | memoryview) -> Iterator[Outcome]:
    """Yield the whole outcomes at the start of ``data``; a cut one at the end is left."""
    view = memoryview(data)
    position, end, unpack, size, make = 0, len(view), _OUTCOME.unpack_from, _OUTCOME.size, Outcome._make
    while position + size <= end:
        fields = unpack(view, position)
        middle = position + size + fields[-2]
        stop = middle + fields[-1]
        if stop > end:
            return
        yield make((*fields[:-2], view[position + size : middle], view[middle:stop]))
        position = stop


def encode_progress(header: dict[str, Any], replies: list[bytes]) -> bytes:
    """A batch of settled calls: a JSON header, then replies holding just the outcomes that counted."""
    text = encode_header(header)
    parts = [struct.pack("<I", len(text)), text]
    for reply in replies:
        parts += [struct.pack("<Q", len(reply)), reply]
    return b"".join(parts)


def split_progress(data: bytes | memoryview) -> tuple[dict[str, Any], list[tuple[str, memoryview]]]:
    """Return the header, and (worker id, outcomes) for each reply."""
    view = memoryview(data)
    (size,) = struct.unpack_from("<I", view)
    header: dict[str, Any] = json.loads(bytes(view[4 : 4 + size]))
    position, replies = 4 + size, []
    while position < len(view):
        (size,) = struct.unpack_from("<Q", view, position)
        position += 8
        replies.append(split_reply(view[position : position + size]))
        position += size
    return header, replies
