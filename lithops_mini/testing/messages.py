"""Messages as an executor sends them, made by hand, and replies taken apart: for tests of what carries them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lithops_mini import wire
from lithops_mini.config import Config
from lithops_mini.job.stage import Stage
from lithops_mini.storage.base import StorageBackend
from lithops_mini.wire import Outcome, Status
from lithops_mini.worker import dependencies, serialize


class Messages:
    """Makes messages whose workers use the storage of a configuration."""

    def __init__(self, config: Config, storage: StorageBackend) -> None:
        self._config = config
        self._storage = storage
        self._executor_id = os.urandom(6).hex()
        self._key = os.urandom(32)
        self._jobs = 0

    def payload(
        self,
        function: Callable[..., Any],
        inputs: Sequence[Any],
        *,
        inject: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        memory: int | None = None,
        inline: int = 64 << 10,
    ) -> bytes:
        """A message that calls ``function`` with each input, as a job of its own.

        ``inject``: parameters the worker fills by name; ``timeout`` in seconds; ``memory`` in bytes; ``inline``: bytes
        up to which a result is in the reply.
        """
        stage = Stage()
        pickled = stage.function(function)
        arguments = [b"".join(stage.arguments((value,), {}, "an input")[0]) for value in inputs]
        code = stage.code(pickled, (), ())
        job_id = f"{self._executor_id}-M{self._jobs:03d}"
        self._jobs += 1
        header = {
            "version": wire.VERSION,
            "job": job_id,
            "keys": {job_id: self._key.hex()},
            "storage": self._config.storage,
            "storage_options": self._storage.worker_options(),
            "bucket": self._config.job.storage_bucket,
            "inline": inline,
            "env": dict(env or {}),
            "inject": list(inject),
            "code": {"sha256": code.sha256, "size": len(code.data), "key": ""},
            "modules": code.modules,
            "timeout": timeout,
            "memory": memory,
        }
        calls = [wire.Call(number, 1, 0, b"", data) for number, data in enumerate(arguments)]
        return wire.encode_payload(wire.encode_header(header), code.data, calls)

    def value(self, outcome: Outcome) -> Any:
        """What the call returned. Fails if it did not."""
        assert outcome.status == Status.OK, (Status(outcome.status).name, bytes(outcome.data))
        if outcome.place == wire.STORED:
            at = wire.Stored.decode(outcome.data)
            return dependencies.load_stored(self._storage, self._config.job.storage_bucket, at, self._key)
        return serialize.loads(outcome.data)

    def values(self, reply: bytes) -> list[Any]:
        """What the calls of a message returned, in the order of the outcomes."""
        return [self.value(outcome) for outcome in outcomes(reply)]


def outcomes(reply: bytes) -> list[Outcome]:
    """The outcomes of a reply."""
    return list(wire.iter_outcomes(wire.split_reply(reply)[1]))


def worker_id(reply: bytes) -> str:
    """The worker that a reply is from."""
    return wire.split_reply(reply)[0]


def statuses(reply: bytes) -> list[str]:
    """How the calls of a message ended, by name."""
    return [Status(outcome.status).name for outcome in outcomes(reply)]
