"""Calls in actions of OpenWhisk, each message an activation whose result is the reply."""

from __future__ import annotations

import json
import logging
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar
from urllib.parse import urlsplit

from lithops_mini.compute import function, openwhisk_errors
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.compute.function import Sizes, Told, UnderWay
from lithops_mini.compute.inbox import Awaited, Inbox
from lithops_mini.compute.openwhisk_options import ActionOptions, OpenWhiskOptions, is_here, safe_url, trusted
from lithops_mini.compute.openwhisk_records import Records
from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.runtimes.openwhisk import Actions, Setup
from lithops_mini.runtimes.openwhisk_service import (
    SERVICE_ERRORS,
    Authorize,
    Limits,
    Refusal,
    Service,
    passes,
    translated,
)
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.worker.function import most_bytes
from lithops_mini.worker.openwhisk import MAX_MESSAGE

logger = logging.getLogger("lithops_mini.openwhisk")

# Seconds for which the log of a failed activation is waited for: it is in the record, which comes after the answer.
_LOG_LIMIT = 3.0
# Seconds between two looks for a record: a share of the time waited, but neither less nor more than these.
_LEAST, _SHARE, _MOST = 0.1, 0.1, 5.0
# Milliseconds of an activation, where the service does not tell how many it permits: what it gives without being asked.
_TIME = 60_000


class OpenWhiskCompute(ComputeBackend):
    """Actions of OpenWhisk, one for each size of memory, made when they are first needed.

    Workers have the credentials of the storage, which are bound to the action, and no others. A call that runs cannot
    be stopped from here: it ends by itself, by its timeout, or with the time of its activation.
    """

    Options: ClassVar[type[Any]] = OpenWhiskOptions
    name: ClassVar[str] = "openwhisk"
    place: ClassVar[str] = "openwhisk.namespace"  # the setting that says which namespace it is
    max_payload = MAX_MESSAGE
    max_reply = MAX_MESSAGE
    composes: ClassVar[bool] = False  # an action has the worker only, and no key of the namespace
    keeps_log: ClassVar[bool] = True
    stops = False

    def __init__(self, options: Any) -> None:
        self._options: ActionOptions = options
        self._service = self._reach()
        self._lock = threading.Lock()
        self._under_way = UnderWay(self.name)
        self._records = Records(self._service)
        self._inbox: Inbox | None = None
        self._by_event = self._options.carrier == "event"
        self._actions: Actions | None = None
        self._recipe = Recipe()
        self._limits: Limits | None = None
        self._sizes = Sizes(self._make)  # names of actions
        self._concurrency: int = options.max_workers
        self.usual_memory = options.memory << 20

    @property
    def concurrency(self) -> int:
        return self._concurrency

    @property
    def reaches_files(self) -> bool:
        return False

    def use_inbox(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def deploy(self, needs: WorkerNeeds) -> None:
        self._check_storage(needs)
        with self._lock:
            if self._actions is None:
                self._prepare(needs)
        self._sizes.ready(self._options.memory)

    def invoke(self, payload: bytes, activation: Activation) -> bytes:
        memory = self._options.memory if activation.memory is None else -(-activation.memory >> 20)
        action = self._action(memory)
        params: dict[str, Any] = {"payload": b64encode(payload).decode("ascii"), "room": self.max_reply}
        del payload
        with self._under_way.one(SERVICE_ERRORS, lambda error: self._not_invoked(error, action)):
            try:
                most = function.allowed(activation, self._time() / 1000)
                if self._inbox is None:
                    told = self._carry(action, params, Awaited(), most)
                else:
                    with self._inbox.expect() as expected:
                        place = function.event_place if self._by_event else function.late_place
                        params["place"] = place(self._inbox, expected)
                        told = self._carry(action, params, expected, most)
            finally:
                activation.end()
        return function.opened(told)

    def limits(self) -> Limits:
        """What the namespace may, asked for once. Raises ``ConfigError`` and ``InvocationError``."""
        if self._limits is None:
            with translated(self._service, "read the limits of the namespace"):
                self._limits = self._service.limits()
            self._check_limits(self._limits)
        return self._limits

    def planned(self, needs: WorkerNeeds) -> dict[str, dict[str, Any]]:
        """The action that ``deploy`` would make, by its name, without what it is made of; none if it is there."""
        self._check_storage(needs)
        self._prepare(needs)
        assert self._actions is not None
        return self._actions.planned(self._recipe, self._options.memory)

    def tail(self, take: Callable[[str, int, str], object]) -> AbstractContextManager[None]:
        raise ConfigError(
            "OpenWhisk shows what calls print when their activation has ended, and not while it runs: lithops-mini logs"
            " has it then"
        )

    def read_log(self, job: str, call: int, since: float) -> Iterator[str]:
        head = f"{job} call {call}: "
        records: list[Mapping[str, Any]] = []
        with translated(self._service, "read the logs of activations"):
            for action in self._service.actions():
                records += self._service.activations(action["name"], since, docs=True)
        for record in sorted(records, key=lambda each: int(each["start"])):
            for line in openwhisk_errors.printed(record.get("logs") or ()):
                if line.startswith(head):
                    yield line.removeprefix(head)

    def close(self) -> None:
        if left := self._under_way.close():
            text = "%d activations go on until their calls end, or their time is over: OpenWhisk lets nobody stop them"
            logger.warning(text, left)
        self._records.close(self._under_way.was_closed())
        self._service.end()
        if self._inbox is not None:
            self._inbox.close()

    # -- the service

    def _reach(self) -> Service:
        """The service that the options lead to. ``ConfigError`` for what is missing or unsafe."""
        options = self._options
        assert isinstance(options, OpenWhiskOptions)
        if options.endpoint is None or options.api_key is None:
            raise ConfigError(
                "openwhisk.endpoint and openwhisk.api_key are not both set: they are what wsk property get shows as"
                " whisk API host and whisk auth"
            )
        basic = f"Basic {b64encode(options.api_key.encode()).decode('ascii')}"
        return self._service_at(options.endpoint, options.namespace, lambda _: basic, "openwhisk.api_key")

    def _service_at(self, endpoint: str, namespace: str, authorize: Authorize, key: str) -> Service:
        options = self._options
        return Service(
            safe_url(endpoint, f"{self.name}.endpoint", insecure=options.insecure),
            namespace,
            authorize,
            section=self.name,
            key=key,
            place=self.place,
            verify=trusted(options, self.name),
            connections=options.max_workers,
        )

    def _prepare(self, needs: WorkerNeeds) -> None:
        """Read the limits, and know what the actions are."""
        limits = self.limits()
        self.max_time = self._time() / 1000
        self.most_time = None if limits.most_time is None else limits.most_time / 1000
        self.most_memory = None if limits.most_memory is None else limits.most_memory << 20
        environment = {**needs.found(), **needs.environment}
        bound = len(json.dumps({"environment": environment})) if environment else 0
        self.max_payload = most_bytes(limits.payload - bound)
        self.max_reply = most_bytes(limits.reply)
        if limits.concurrency is not None:
            self._concurrency = max(1, min(self._options.max_workers, limits.concurrency))
        self._actions = self._make_actions(environment)
        self._recipe = self._actions.recipe(needs.packages)

    def _check_limits(self, limits: Limits) -> None:
        options = self._options
        if limits.most_time is not None and options.max_time is not None and options.max_time * 1000 > limits.most_time:
            raise ConfigError(
                f"{self.name}.max_time is {options.max_time} s, and the namespace permits {limits.most_time / 1000:g} s"
            )
        least, most = limits.least_memory, limits.most_memory
        if least is not None and most is not None and not least <= options.memory <= most:
            raise ConfigError(
                f"{self.name}.memory is {options.memory:,} MiB, and actions of the namespace have from {least:,} to"
                f" {most:,} MiB"
            )

    def _time(self) -> int:
        """Milliseconds of an activation."""
        if self._options.max_time is not None:
            return self._options.max_time * 1000
        return self.limits().most_time or _TIME

    # -- actions

    def runtimes(self, bucket: str) -> Actions:
        return self._make_actions({})

    def _make_actions(self, environment: Mapping[str, str]) -> Actions:
        options = self._options
        setup = Setup(options.package, options.image, options.push)
        recipe = Recipe(base=options.base or "", dockerfile=options.dockerfile, requirements=options.requirements)
        return Actions(
            self._service, recipe, setup, memory=options.memory, timeout=self._time(), environment=environment
        )

    def _action(self, memory: int) -> str:
        """The action with so many MiB, or the least that there can be. Raises ``InvocationError``."""
        limits = self._limits
        assert limits is not None
        memory = max(memory, limits.least_memory or 0)
        most = limits.most_memory
        if most is not None and memory > most:
            text = f"runtime_memory is {memory:,} MiB, and actions of the namespace have at most {most:,} MiB"
            raise InvocationError(text, reason=Reason.REFUSED)
        return self._sizes.ready_for_message(memory)

    def _make(self, memory: int) -> str:
        assert self._actions is not None
        return self._actions.ensure(self._recipe, memory, lambda line: logger.info("%s", line))

    # -- activations

    def _carry(self, action: str, params: Mapping[str, Any], awaited: Awaited, most: float) -> Told:
        """Invoke the action, and return what its worker answers, or has stored. ``most``: seconds it may take."""
        until = time.monotonic() + most + function.LATE

        def ask() -> Told:
            record = self._service.invoke(action, params, most + function.LATE, blocking=not self._by_event)
            if "response" not in record:
                return self._follow(action, record["activationId"], awaited, until)
            if (told := _told(record)) is None:
                raise openwhisk_errors.failed(self._with_log(record), action)
            return told

        def is_lost(error: Exception) -> bool:
            stores = self._inbox is not None and not self._under_way.closed.is_set()
            return stores and openwhisk_errors.is_lost(error)

        return function.answered(ask, awaited, most, is_lost)

    def _follow(self, action: str, activation: str, awaited: Awaited, until: float) -> Told:
        """What comes of an activation that runs: a stored reply, or what its record says."""
        began = time.monotonic()
        with self._records.watch(action, activation, awaited, successes=not self._by_event):
            stored = awaited.wait(until)
        if stored is not None:
            return dict(json.loads(stored))
        record = self._record(activation, until)
        if record is not None and (told := _told(record)) is not None:
            return told
        if record is None or record["response"].get("success"):  # who stores its reply has none in its record
            text = f"no word came of an activation of the action {action} within {time.monotonic() - began:.0f} s"
            raise InvocationError(text, reason=Reason.DIED, retryable=True)
        if (stored := awaited.find()) is not None:  # it was lost with its work done
            return dict(json.loads(stored))
        raise openwhisk_errors.failed(record, action)

    def _record(self, activation: str, until: float) -> dict[str, Any] | None:
        """The record of an activation as soon as there is one; ``None`` if there is none until then, monotonic."""
        began = time.monotonic()
        while True:
            try:
                found = self._service.activation(activation)
            except SERVICE_ERRORS as error:
                # The activation goes on, whatever befalls those who ask about it.
                if not passes(error) or self._under_way.closed.is_set():
                    raise
                logger.info("the activation %s cannot be asked about now: %s", activation, error)
                found = None
            now = time.monotonic()
            if found is not None or now > until:
                return found
            if self._under_way.closed.wait(min(_MOST, max(_LEAST, _SHARE * (now - began)))):
                raise self._under_way.was_closed()

    def _with_log(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record of a failed activation with its log, which an answer does not have."""
        if record.get("logs"):
            return record
        try:
            return self._record(record["activationId"], time.monotonic() + _LOG_LIMIT) or record
        except SERVICE_ERRORS as error:
            logger.info("the log of the activation %s cannot be read: %s", record["activationId"], error)
            return record

    def _not_invoked(self, error: Exception, action: str) -> InvocationError:
        if isinstance(error, Refusal) and error.status == 404:
            self._sizes.forget(action)
        return openwhisk_errors.not_invoked(error, action, self._service)

    def _check_storage(self, needs: WorkerNeeds) -> None:
        """Raise ``ConfigError`` for a storage that actions do not reach, as far as that can be seen from here."""
        if self._by_event and self._inbox is None:
            raise ConfigError(
                f"{self.name}.carrier is event, and replies to events come by storage, which actions do not reach: set"
                " storage to aws_s3 or ibm_cos"
            )
        host = urlsplit(needs.endpoint or "").hostname or ""
        if is_here(host) and not is_here(urlsplit(self._service.endpoint).hostname or ""):
            raise ConfigError(
                f"actions cannot reach the storage at {needs.endpoint}, which is this machine as seen by itself: let it"
                " listen on an address that they see"
            )


def _told(record: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the worker has answered; ``None`` if the activation came to no answer of its.

    One that could not be stored is in the record of an activation that failed.
    """
    result = record["response"].get("result")
    result = result.get("error", result) if isinstance(result, dict) else None
    return result if isinstance(result, dict) and result.keys() & {"reply", "refused"} else None
