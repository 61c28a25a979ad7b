"""What became of a recorded job, call by call, as the executor that ran it would tell."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

from lithops_mini import records, wire
from lithops_mini.failures import Failure
from lithops_mini.job.future import stats_of
from lithops_mini.job.manifest import JobRecord, read_attempt, read_job, read_manifest
from lithops_mini.job.settle import LOST
from lithops_mini.records import Attempt, CallStats
from lithops_mini.storage.base import StorageBackend


@dataclass(frozen=True)
class History:
    """A job and its settled calls, in the order of their numbers."""

    record: JobRecord  # its manifest's signature has been checked
    calls: list[CallStats]
    failures: list[Failure]  # without inputs, which are not recorded beside them
    attempts: list[Attempt]  # that were followed by another one

    @property
    def stage(self) -> str:
        """The job's name as in ``FunctionExecutor.stats``."""
        return stage_name(self.record.header["function"], self.record.job_id)


def stage_name(function: str, job_id: str) -> str:
    """What a job is called among the others of its executor: ``"parse (M000)"``."""
    return f"{function} ({job_id.rpartition('-')[2]})"


def read_history(storage: StorageBackend, bucket: str, job_id: str, key: bytes) -> History:
    """Read what is recorded of a job, after checking the signatures. Raises ``NoSuchObject``, ``IntegrityError``."""
    header = read_manifest(storage, bucket, job_id, key)
    submitted: float = header["created"]
    calls: dict[int, CallStats] = {}
    failures: dict[int, Failure] = {}
    attempts: list[Attempt] = []
    for info in storage.list(bucket, records.progress_prefix(job_id)):
        batch, replies = wire.split_progress(wire.verify(key, info.key, storage.get(bucket, info.key)))
        attempts += [read_attempt(told, submitted) for told in batch["attempts"]]
        for (worker_id, outcomes), (sent, settled) in zip(replies, batch["moments"], strict=True):
            dispatched = None if sent is None else submitted + sent
            for outcome in wire.iter_outcomes(outcomes):
                noted: tuple[Any, ...] = outcome[:-2]
                calls[outcome.call] = stats_of((submitted, dispatched, submitted + settled, worker_id, noted))
                if (failure := _failure(outcome, worker_id)) is not None:
                    failures[outcome.call] = failure
    record = JobRecord(job_id, header, read_job(storage, bucket, job_id).progress)
    return History(record, [calls[n] for n in sorted(calls)], [failures[n] for n in sorted(failures)], attempts)


def _failure(outcome: wire.Outcome, worker_id: str) -> Failure | None:
    status = wire.Status(outcome.status)
    if status in (wire.Status.OK, wire.Status.CANCELLED):
        return None
    data = bytes(outcome.data)
    if status == wire.Status.ERROR:
        name, message, text, line, _ = pickle.loads(data)  # checked, and the exception itself stays packed in it
    else:
        name, message, text, line = LOST[status].__name__, data.decode(errors="replace"), "", ""
    return Failure(outcome.call, name, message, line, text, outcome.attempt, worker_id, "")
