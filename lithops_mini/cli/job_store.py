"""The storage in which jobs are recorded, and the keys that their records are signed with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lithops_mini.cli.options import Selection
from lithops_mini.errors import LithopsMiniError

if TYPE_CHECKING:
    from lithops_mini.storage.base import StorageBackend


@contextmanager
def open_storage(selection: Selection) -> Iterator[tuple[StorageBackend, str]]:
    """The configured storage, and the bucket of the jobs."""
    from lithops_mini import registry

    config = selection.load()
    storage = registry.find("storage", config.storage)(config.storage_options)
    try:
        yield storage, config.job.storage_bucket
    finally:
        storage.close()


def signing_key(job_id: str) -> bytes:
    """The key of a job's records; an error where the secret it is made of does not outlive the process."""
    from lithops_mini.job.keys import job_key, secret_is_kept

    if not secret_is_kept():
        raise LithopsMiniError(
            f"the signatures of {job_id} cannot be checked: the secret they are made with is not kept, because "
            "~/.lithops_mini/secret cannot be written or is not private; make it a file of yours alone (chmod 600)"
        )
    return job_key(job_id)
