"""Every error lithops_mini raises.

    LithopsMiniError
      ConfigError            (ValueError)         a setting is unknown, missing or of the wrong type
      InputError             (ValueError)         arguments, inputs or data sources that cannot be run
      SerializationError     (TypeError)          a function, argument or result that cannot be pickled
      StorageError           (OSError)            a storage service refused or failed
        NoSuchObject         (FileNotFoundError)
        NoSuchBucket         (FileNotFoundError)
        ObjectExists         (FileExistsError)
        ObjectChanged                             the version of an object that was asked for is gone
        AccessDenied         (PermissionError)
        StorageUnavailable                        it could not be reached, was too busy or broke off: later it may work
      InvocationError                             a compute backend could not carry a message; has a reason
        BudgetExceeded                            it was not sent, since it could have cost more than a budget leaves
      IntegrityError                              bytes do not match their digest or signature
      WaitTimeout            (TimeoutError)       wait() or get_result() ran out of time; the calls go on
      CallError                                   a call ended without a value and without an exception of the user's
        WorkerDied                                its process ended: exit code, signal
        OutOfMemory          (MemoryError)        its process passed its memory limit
        CallTimeout          (TimeoutError)       it ran longer than its timeout
        RemoteError                               its exception cannot be rebuilt in this process

An exception raised by the user's own function comes back as itself and is not in this tree.
"""

from __future__ import annotations

from enum import StrEnum


class LithopsMiniError(Exception):
    """The base of every error of lithops_mini."""


class ConfigError(LithopsMiniError, ValueError):
    """A configuration file, profile, key or value is wrong; the message names it and what would be right."""


class InputError(LithopsMiniError, ValueError):
    """Arguments, input data or a data source that cannot be run; raised before anything runs."""


class SerializationError(LithopsMiniError, TypeError):
    """A function, an argument or a result that cannot be pickled; the message names the object by its path."""


class StorageError(LithopsMiniError, OSError):
    """A storage service refused or failed."""


class NoSuchObject(StorageError, FileNotFoundError):
    """The bucket exists; the object does not."""


class NoSuchBucket(StorageError, FileNotFoundError):
    """The bucket does not exist."""


class ObjectExists(StorageError, FileExistsError):
    """A conditional put found the key taken."""


class ObjectChanged(StorageError):
    """The version of the object that was asked for, or was being read, is gone."""


class AccessDenied(StorageError, PermissionError):
    """The service or the file system does not let this user do that."""


class StorageUnavailable(StorageError):
    """The service could not be reached, had too much to do, failed or broke off, and went on so when asked again.

    The same request may well succeed later: a call that ends with this error is run again.
    """


class Reason(StrEnum):
    """Why a message could not be carried, or a worker was lost."""

    THROTTLED = "throttled"  # one too many at once
    PACED = "paced"  # one too many in a second, a minute, ...
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    DIED = "died"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"


class InvocationError(LithopsMiniError):
    """A compute backend could not carry a message to a worker and its reply back.

    ``reason`` says what happened; ``retryable`` whether sending the same message again can help.
    """

    def __init__(self, message: str, *, reason: Reason = Reason.DIED, retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class BudgetExceeded(InvocationError):
    """The call was not run, or not to its end: with it the job could have cost more than its budget.

    ``limit`` and ``spent`` are dollars: what the job might cost, and what it had cost by then.
    """

    def __init__(self, message: str, *, limit: float = 0.0, spent: float = 0.0) -> None:
        super().__init__(message, reason=Reason.REFUSED)
        self.limit = limit
        self.spent = spent


class IntegrityError(LithopsMiniError):
    """Bytes from storage do not match the digest or signature they must have; they were not unpickled."""


class WaitTimeout(LithopsMiniError, TimeoutError):
    """The time given to wait() or get_result() is over; the calls themselves go on."""


class CallError(LithopsMiniError):
    """A call ended without a value, and not by an exception of the user's function."""


class WorkerDied(CallError):
    """The process that ran the call ended: the message has the exit code or signal."""


class OutOfMemory(CallError, MemoryError):
    """The process that ran the call passed its memory limit and was stopped."""


class CallTimeout(CallError, TimeoutError):
    """The call ran longer than its timeout and was stopped."""


class RemoteError(CallError):
    """The call raised an exception that cannot be rebuilt in this process.

    ``type_name`` is its class, ``remote_traceback`` its traceback as text.
    """

    def __init__(self, message: str, *, type_name: str = "", remote_traceback: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.remote_traceback = remote_traceback
