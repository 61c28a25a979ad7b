"""Properties of what travels: messages, signatures, keys, and pickles with their buffers beside them."""

from __future__ import annotations

import copy
import functools
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lithops_mini import records, wire
from lithops_mini.errors import IntegrityError, SerializationError
from lithops_mini.worker import code, dependencies, serialize

blobs = st.binary(max_size=200)
u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
floats = st.floats(allow_nan=False)
single = st.floats(width=32, allow_nan=False)
headers = st.dictionaries(st.text(max_size=10), st.none() | st.integers() | st.text(max_size=20), max_size=5)
calls = st.builds(wire.Call, u32, u16, st.integers(0, 3), blobs, blobs)
outcomes = st.builds(
    wire.Outcome,
    call=u32,
    attempt=u16,
    status=st.sampled_from(list(wire.Status)),
    place=st.sampled_from([wire.INLINE, wire.STORED]),
    cold=st.integers(0, 1),
    started=floats,
    ended=floats,
    cpu_user=single,
    cpu_system=single,
    peak_memory=u64,
    bytes_in=u64,
    bytes_out=u64,
    data_read=u64,
    storage_puts=u32,
    storage_gets=u32,
    storage_deletes=u32,
    log=blobs,
    data=blobs,
)
executor_ids = st.from_regex(r"[0-9a-f]{12}", fullmatch=True)
job_ids = st.builds(lambda e, k, n: f"{e}-{k}{n:03d}", executor_ids, st.sampled_from("MRC"), st.integers(0, 99999))


def plain(record: Any) -> Any:
    """A named tuple with bytes where it has views of a message."""
    return record._make(bytes(field) if isinstance(field, memoryview) else field for field in record)


# -- messages


@given(headers, blobs, st.lists(calls, max_size=5))
def test_payloads(header: dict[str, Any], inline_code: bytes, sent: list[wire.Call]) -> None:
    encoded = wire.encode_header(header)
    payload = wire.encode_payload(encoded, inline_code, sent)
    for received in (payload, bytearray(payload), memoryview(payload)):
        found, found_code, rest = wire.split_payload(received)
        assert (found, bytes(found_code)) == (encoded, inline_code)
        assert [plain(call) for call in wire.iter_calls(rest)] == sent
    bodies = sum(wire.CALL_OVERHEAD + len(call.dependencies) + len(call.arguments) for call in sent)
    assert len(payload) == len(wire.encode_payload(encoded, inline_code, [])) + bodies


@given(st.text(max_size=50), st.lists(outcomes, max_size=5))
def test_replies(worker_id: str, sent: list[wire.Outcome]) -> None:
    frames = [wire.encode_outcome(outcome) for outcome in sent]
    reply = wire.encode_reply(worker_id, b"".join(frames))
    name, rest = wire.split_reply(reply)
    assert name == worker_id
    assert [plain(outcome) for outcome in wire.iter_outcomes(rest)] == sent
    ends = list(wire.iter_frame_ends(bytes(rest)))
    assert ends == [sum(map(len, frames[: n + 1])) for n in range(len(frames))]


@given(st.lists(outcomes, min_size=1, max_size=4), st.data())
def test_a_cut_stream_of_outcomes_gives_the_whole_ones(sent: list[wire.Outcome], data: st.DataObject) -> None:
    frames = [wire.encode_outcome(outcome) for outcome in sent]
    stream = b"".join(frames)
    cut = data.draw(st.integers(0, len(stream)))
    whole = sum(sum(map(len, frames[: n + 1])) <= cut for n in range(len(frames)))
    assert [plain(outcome) for outcome in wire.iter_outcomes(stream[:cut])] == sent[:whole]
    ends = list(wire.iter_frame_ends(stream[:cut]))
    assert len(ends) == whole
    # What arrives later is read from where the whole ones ended.
    start = ends[-1] if ends else 0
    assert [plain(outcome) for outcome in wire.iter_outcomes(stream[start:])] == sent[whole:]


@given(headers, st.lists(st.tuples(st.text(max_size=20), st.lists(outcomes, max_size=3)), max_size=4))
def test_progress(header: dict[str, Any], replies: list[tuple[str, list[wire.Outcome]]]) -> None:
    encoded = [wire.encode_reply(worker, b"".join(map(wire.encode_outcome, outcomes))) for worker, outcomes in replies]
    found, batches = wire.split_progress(wire.encode_progress(header, encoded))
    assert found == header
    assert [(worker, [plain(o) for o in wire.iter_outcomes(rest)]) for worker, rest in batches] == replies


@given(st.text(), u64, u64, st.text(max_size=64))
def test_references(key: str, start: int, stop: int, digest: str) -> None:
    stored = wire.Stored(key, start, stop, digest)
    assert wire.Stored.decode(stored.encode()) == stored
    assert wire.Stored.decode(memoryview(stored.encode())) == stored


# -- trust


@given(st.binary(min_size=1, max_size=64), st.text(max_size=30), st.lists(blobs, max_size=3))
def test_what_was_signed_is_valid(key: bytes, name: str, parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert wire.sign(key, name, *parts) == wire.sign(key, name, data)
    assert bytes(wire.verify(key, name, data + wire.sign(key, name, data))) == data


@given(st.binary(min_size=1, max_size=32), st.text(max_size=20), blobs, st.data())
def test_nothing_else_is_valid(key: bytes, name: str, body: bytes, data: st.DataObject) -> None:
    signed = bytearray(body + wire.sign(key, name, body))
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "rename", "other key"]))
    if how == "flip":
        signed[data.draw(st.integers(0, len(signed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del signed[data.draw(st.integers(0, len(signed) - 1)) :]
    elif how == "grow":
        signed += data.draw(st.binary(min_size=1, max_size=5))
    elif how == "rename":
        name = data.draw(st.text(max_size=20).filter(lambda other: other != name))
    else:
        key += b"\x01"
    with pytest.raises(IntegrityError, match="signature"):
        wire.verify(key, name, signed)


@given(blobs, blobs)
def test_digests(data: bytes, other: bytes) -> None:
    from hashlib import sha256

    digest = sha256(data).hexdigest()
    wire.check_digest(digest, "it", memoryview(data))
    if other != data:
        with pytest.raises(IntegrityError, match="it does not have the digest"):
            wire.check_digest(digest, "it", other)


# -- keys


@given(job_ids, job_ids, u32, u32, st.integers(1, 9), st.integers(1, 9))
def test_keys_of_different_things_differ(a: str, b: str, call: int, other: int, attempt: int, again: int) -> None:
    keys = [
        (records.manifest_key(a), ("manifest", a)),
        (records.manifest_key(b), ("manifest", b)),
        (records.inputs_key(a), ("inputs", a)),
        (records.outcome_key(a, call, attempt), ("outcome", a, call, attempt)),
        (records.outcome_key(b, other, again), ("outcome", b, other, again)),
        (records.progress_key(a, call), ("progress", a, call)),
        (records.progress_key(b, other), ("progress", b, other)),
        (records.dependencies_key(a, call), ("dependencies", a, call)),
    ]
    for key, thing in keys:
        assert all((key == found) == (thing == what) for found, what in keys)
        executor_id = thing[1].rpartition("-")[0]
        assert key.startswith(records.executor_prefix(executor_id))
        assert key.startswith(records.job_prefix(thing[1]))


@given(job_ids, u32)
def test_manifests_are_told_from_other_keys(job_id: str, number: int) -> None:
    assert records.job_of_manifest(records.manifest_key(job_id)) == job_id
    for key in (
        records.inputs_key(job_id),
        records.outcome_key(job_id, number, 1),
        records.progress_key(job_id, number),
        records.code_key(job_id.rpartition("-")[0], "abc"),
    ):
        assert records.job_of_manifest(key) is None


@given(st.lists(st.integers(0, 10**8 - 1), max_size=10))
def test_progress_keys_sort_by_number(numbers: list[int]) -> None:
    keys = [records.progress_key("0123-M000", number) for number in sorted(numbers)]
    assert keys == sorted(keys)


# -- pickles and their buffers

arrays = st.builds(
    lambda shape, dtype, order, step: np.asarray(
        np.arange(int(np.prod(shape, dtype=int))).reshape(shape).astype(dtype), order=order
    )[::step],
    st.lists(st.integers(0, 130), min_size=1, max_size=3),
    st.sampled_from(["u1", "i8", "f4", "c16", "bool"]),  # strided big-endian ones are turned round by numpy itself
    st.sampled_from("CF"),
    st.sampled_from([1, 2, -1]),
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | floats | st.text() | st.binary() | arrays | st.binary().map(bytearray),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=6,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool(np.array_equal(a, b))
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(a == b)


def joined(parts: Sequence[serialize.Buffer]) -> bytearray:
    return bytearray(b"".join(parts))


@given(values)
@example([np.zeros(100_000), bytearray(100_000), np.zeros((300, 300))[:, ::2], np.asfortranarray(np.ones((300, 300)))])
def test_values_come_back(value: Any) -> None:
    for dump in (serialize.dumps, serialize.fast_dumps):
        parts = dump(value)
        blob = joined(parts)
        assert serialize.size_of(parts) == len(blob)
        assert same(serialize.loads(blob), value)
        assert same(serialize.loads(bytes(blob)), value)
        assert same(serialize.loads_own(bytes(blob)), value)
        assert same(serialize.loads_own(memoryview(bytes(blob))), value)


@given(st.lists(st.integers(1 << 16, 1 << 18), min_size=1, max_size=4))
def test_large_buffers_are_beside_the_pickle_aligned_and_not_copied(sizes: list[int]) -> None:
    value = [np.full(size, 7, dtype=np.uint8) for size in sizes]
    parts = serialize.dumps(value)
    mine = [memoryview(part) for part in parts if memoryview(part).nbytes in sizes]
    assert len(mine) == len(sizes)
    assert all(np.shares_memory(np.asarray(view), array) for view, array in zip(mine, value, strict=True))
    blob = joined(parts)
    base = np.frombuffer(blob, dtype=np.uint8)
    for array in serialize.loads(blob):
        assert np.shares_memory(array, base)
        assert (array.ctypes.data - base.ctypes.data) % 64 == 0
        assert array.flags.writeable
    own = serialize.loads_own(bytes(blob))
    assert all(array.flags.writeable for array in own)


def test_a_buffer_that_is_used_twice_is_there_once() -> None:
    array = np.zeros(100_000)
    parts = serialize.dumps([array, array])
    assert serialize.size_of(parts) < array.nbytes + 1000
    first, second = serialize.loads(joined(parts))
    assert first is second


def test_caches_of_functools_travel_empty() -> None:
    @functools.lru_cache(maxsize=5, typed=True)
    def local(x: int) -> int:
        return x + 1

    local(1)
    copied = serialize.loads(joined(serialize.dumps(local)))
    assert copied(1) == 2
    assert copied.cache_parameters() == {"maxsize": 5, "typed": True}
    assert copied.cache_info().misses == 1
    assert serialize.loads(joined(serialize.dumps(module_level))) is module_level


@functools.cache
def module_level(x: int) -> int:
    return x


def test_what_cannot_be_pickled_is_found_by_its_path() -> None:
    import threading

    value = {"a": [1, {"deep": (threading.Lock(),)}]}
    with pytest.raises(TypeError) as caught:
        serialize.dumps(value)
    error = serialize.explain(value, "the input", caught.value)
    assert isinstance(error, SerializationError)
    assert str(error).startswith("the input['a'][1]['deep'][0] (a _thread.lock) cannot be pickled: TypeError")


# -- code and dependencies


@given(st.binary(max_size=50), st.dictionaries(st.text(max_size=10), st.text(max_size=50), max_size=3))
def test_code(value: bytes, sources: dict[str, str]) -> None:
    encoded = code.encode(b"".join(serialize.dumps(value)), sources, b"")
    assert code.load(encoded, None) == (value, sources)


@given(st.lists(st.one_of(st.integers(), st.text(), st.binary()), max_size=6))
def test_inline_dependencies(given_values: list[Any]) -> None:
    blobs = [b"".join(serialize.fast_dumps(value)) for value in given_values]
    table = dependencies.Table(
        memoryview(dependencies.encode_table([(["inline", len(blob)], blob) for blob in blobs])), _no_storage, "b", {}
    )
    results = dependencies.Results(table, range(len(blobs)))
    assert list(results) == given_values
    assert [results[index] for index in range(-len(blobs), len(blobs))] == given_values * 2
    assert list(results[1::2]) == given_values[1::2]
    assert pickle.loads(pickle.dumps(results)) == copy.deepcopy(given_values)


def _no_storage() -> Any:
    raise AssertionError("nothing here is stored")


def test_a_message_of_another_version_is_refused() -> None:
    from lithops_mini.errors import LithopsMiniError
    from lithops_mini.worker.call import Jobs

    payload = wire.encode_payload(wire.encode_header({"version": wire.VERSION + 1}), b"", [])
    with pytest.raises(LithopsMiniError, match="rebuild the runtime"):
        list(Jobs(None).run(payload, bytes))
