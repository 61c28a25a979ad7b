"""Results of other calls as arguments of this one: loaded in the worker, as they are used.

table := u32 entries length, entries (JSON), the inline values one after the other
entry := ["inline", size] | ["stored", job, key, size] | ["pending", job, call]
"""

from __future__ import annotations

import json
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, overload

from lithops_mini import records, wire
from lithops_mini.errors import InputError, IntegrityError
from lithops_mini.storage.base import StorageBackend
from lithops_mini.worker import serialize

Entry = list[Any]
Read = TypeVar("Read")
Checked = TypeVar("Checked")

# What is wrong may have been damaged on its way, where that is not protected by TLS; what is wrong so often is wrong in
# storage.
_READINGS = 3
_POLL = (0.02, 0.5)  # seconds, first and longest, between two looks for results that are still to come


def encode_table(entries: Sequence[tuple[Entry, bytes]]) -> bytes:
    text = json.dumps([entry for entry, _ in entries], separators=(",", ":")).encode()
    return b"".join((struct.pack("<I", len(text)), text, *(data for _, data in entries)))


class Table:
    """The dependencies of one call."""

    def __init__(
        self, data: memoryview, storage: Callable[[], StorageBackend], bucket: str, keys: Mapping[str, bytes]
    ) -> None:
        (size,) = struct.unpack_from("<I", data)
        self._entries: list[Entry] = json.loads(bytes(data[4 : 4 + size]))
        self._inline: dict[int, memoryview] = {}
        position = 4 + size
        for index, entry in enumerate(self._entries):
            if entry[0] == "inline":
                self._inline[index] = data[position : position + entry[1]]
                position += entry[1]
        self._storage = storage
        self._bucket = bucket
        self._keys = keys
        self._settled: dict[str, _Settled] = {}

    def value(self, index: int) -> Any:
        kind, *place = self._entries[index]
        if kind == "inline":
            # A copy: the value's buffers must not be shared with those of the next load.
            return serialize.loads(bytearray(self._inline[index]))
        if kind == "stored":
            job, key, size = place
            return load_stored(self._storage(), self._bucket, wire.Stored(key, 0, size), self._keys[job])
        job, call = place
        if job not in self._settled:
            self._settled[job] = _Settled(self._storage(), self._bucket, job, self._keys[job])
        return self._settled[job].value(call)


def load_stored(storage: StorageBackend, bucket: str, at: wire.Stored, key: bytes) -> Any:
    """Read a signed object, check it, unpickle it; large arrays are views of the one copy read."""
    return serialize.loads(read_intact(partial(read_stored, storage, bucket, at), partial(wire.verify, key, at.key)))


def load_digested(storage: StorageBackend, bucket: str, at: wire.Stored, sha256: str, what: str) -> bytearray:
    """Read the bytes of a reference and check their digest; ``what`` they are is for the error."""

    def check(data: bytearray) -> bytearray:
        wire.check_digest(sha256, what, data)
        return data

    return read_intact(partial(read_stored, storage, bucket, at), check)


def read_intact(read: Callable[[], Read], check: Callable[[Read], Checked]) -> Checked:
    """Return ``check(read())``; ``IntegrityError`` when what was read is wrong every time."""
    for _ in range(_READINGS - 1):
        with suppress(IntegrityError):
            return check(read())
    return check(read())


def read_stored(storage: StorageBackend, bucket: str, at: wire.Stored) -> bytearray:
    """The bytes of a reference, in one writable buffer."""
    data = bytearray(at.stop - at.start)
    view, filled = memoryview(data), 0
    with storage.open(bucket, at.key, at.start, at.stop) as stream:
        while filled < len(data):
            count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                break
            filled += count
    view.release()
    del data[filled:]
    return data


class _Settled:
    """The results of a job that is still running, as its client records them."""

    def __init__(self, storage: StorageBackend, bucket: str, job: str, key: bytes) -> None:
        self._storage, self._bucket, self._job, self._key = storage, bucket, job, key
        self._last = ""
        self._outcomes: dict[int, wire.Outcome] = {}

    def value(self, call: int) -> Any:
        wait, longest = _POLL
        # Storage tells nobody when an object appears; looking again is the only way to know.
        pause = threading.Event()
        while call not in self._outcomes:
            if not self._read_new():
                pause.wait(wait)
                wait = min(wait * 1.5, longest)
        outcome = self._outcomes[call]
        if outcome.status != wire.Status.OK:
            raise InputError(f"call {call} of {self._job}, whose result this call waits for, failed")
        if outcome.place == wire.STORED:
            return load_stored(self._storage, self._bucket, wire.Stored.decode(outcome.data), self._key)
        return serialize.loads(bytearray(outcome.data))

    def _read_new(self) -> bool:
        found = False
        for info in self._storage.list(self._bucket, records.progress_prefix(self._job), after=self._last):
            read = partial(self._storage.get, self._bucket, info.key)
            batch = read_intact(read, partial(wire.verify, self._key, info.key))
            for _, outcomes in wire.split_progress(batch)[1]:
                self._outcomes.update((outcome.call, outcome) for outcome in wire.iter_outcomes(outcomes))
            self._last, found = info.key, True
        return found


class Results(Sequence[Any]):
    """The results of other calls, in order. Each is loaded when it is asked for and not kept."""

    def __init__(self, table: Table, indices: Sequence[int]) -> None:
        self._table = table
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Results(self._table, self._indices[index])
        return self._table.value(self._indices[index])

    def __iter__(self) -> Iterator[Any]:
        return (self._table.value(index) for index in self._indices)

    def __reduce__(self) -> tuple[Any, ...]:
        """A reducer that returns it returns the results."""
        return list, (list(self),)


# While a call's arguments are unpickled, its table; a stack, since a call run in this process may run calls itself.
_tables = threading.local()


def load_arguments(arguments: memoryview, table: Table | None) -> Any:
    """Unpickle a call's arguments, with what they refer to in ``table``."""
    outer = getattr(_tables, "current", None)
    _tables.current = table
    try:
        return serialize.loads(arguments)
    finally:
        _tables.current = outer


def dependency(index: int) -> Any:
    """What a future among the arguments is pickled as."""
    return _tables.current.value(index)


def results(indices: Sequence[int]) -> Results:
    """What a reducer's argument is pickled as."""
    return Results(_tables.current, indices)
