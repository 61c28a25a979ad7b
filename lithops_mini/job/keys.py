"""The keys that sign a job's objects: one for each job, derived from a secret of this user's that never leaves here."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from functools import cache
from pathlib import Path

logger = logging.getLogger("lithops_mini.job")

_SIZE = 32


def job_key(job_id: str) -> bytes:
    """The same in every process of this user on this machine, so that another one can attach to the job."""
    return hmac.new(_secret()[0], b"job\0" + job_id.encode(), hashlib.sha256).digest()


def secret_is_kept() -> bool:
    """Whether other processes of this user have the same keys; if not, only this one can check what it signs."""
    return _secret()[1]


@cache
def _secret() -> tuple[bytes, bool]:
    """The secret, and whether it is kept."""
    path = Path("~/.lithops_mini/secret").expanduser()
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        beside = path.with_name(f"secret.{os.getpid()}.{os.urandom(4).hex()}")
        if not path.exists():
            descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(_SIZE))
            try:
                os.link(beside, path)  # of two processes that do this at once, both use what the first one wrote
            except FileExistsError:
                logger.debug("another process has just made %s", path)
            finally:
                os.unlink(beside)
        status = path.stat()
        if status.st_uid == os.getuid() and not status.st_mode & 0o077 and status.st_size == _SIZE:
            return path.read_bytes(), True
        logger.warning("%s is not a private file of this user and is not used: jobs cannot be resumed", path)
    except OSError as error:  # no home, or one that cannot be written, as in many containers
        logger.debug("no secret can be kept at %s (%s): jobs cannot be resumed from another process", path, error)
    return os.urandom(_SIZE), False
