"""Calls in services of Knative, each message a request whose answer is the reply."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import ClassVar
from urllib.parse import urlsplit

import requests

from lithops_mini import wire
from lithops_mini.compute import knative_errors, knative_pods, knative_tail
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.compute.function import LATE, Sizes, UnderWay, allowed, event_place, opened
from lithops_mini.compute.inbox import Expected, Inbox
from lithops_mini.compute.knative_errors import HTTP_ERRORS
from lithops_mini.compute.knative_options import KnativeOptions
from lithops_mini.compute.knative_pods import PodWatch
from lithops_mini.errors import ConfigError, IntegrityError, InvocationError, Reason
from lithops_mini.runtimes import knative_ready
from lithops_mini.runtimes.cluster import Cluster
from lithops_mini.runtimes.http import Client, Exchange
from lithops_mini.runtimes.knative import Services, There
from lithops_mini.runtimes.knative_image import ServiceImages
from lithops_mini.runtimes.knative_ready import End
from lithops_mini.runtimes.knative_service import Lent, Setup
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.worker import frames
from lithops_mini.worker import knative as protocol
from lithops_mini.worker.frames import Kind

logger = logging.getLogger("lithops_mini.knative")

_CONNECT_LIMIT = 10.0  # seconds
# A pod's record tells some time after its death what has killed it: how often it is looked at, and the seconds between.
_LOOKS, _PAUSE = 2, 1.0
_SHOWN_ENDS = 3
# Statuses and types of what workers answer who have taken a message.
_WORKERS = ((200, protocol.BYTES), (200, protocol.FRAMES), (202, protocol.FRAMES))


class KnativeCompute(ComputeBackend):
    """Services of Knative, one for each size of memory, made when they are first needed.

    Workers have what the storage needs in a secret. A connection that is closed ends the calls of its message: so they
    are stopped; those of an event go on. Services stay when the backend is closed, and scale to zero.
    """

    Options = KnativeOptions
    max_payload = protocol.MAX_MESSAGE
    max_reply = protocol.MAX_MESSAGE
    composes: ClassVar[bool] = False  # a service has the worker only, and may not make others
    keeps_log: ClassVar[bool] = True

    def __init__(self, options: KnativeOptions) -> None:
        self._options = options
        self._by_event = options.carrier == "event"
        self.stops = not self._by_event
        self.max_time = options.max_time
        self.usual_memory = options.memory << 20
        self._limit = float(options.timeout)
        self._cluster = Cluster(options.kubeconfig, options.context, options.namespace, options.ca_bundle)
        self._client = Client(self.concurrency, options.ca_bundle or True)
        self._under_way = UnderWay("knative")
        self._lock = threading.Lock()
        self._services: Services | None = None
        self._recipe: Recipe | None = None
        self._sizes: Sizes[There] = Sizes(self._make)
        self._inbox: Inbox | None = None
        self._pods = PodWatch(self._cluster)

    @property
    def concurrency(self) -> int:
        options = self._options
        return min(options.max_workers, options.max_scale * options.container_concurrency)

    @property
    def reaches_files(self) -> bool:
        return self._options.shared_files

    def use_inbox(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def deploy(self, needs: WorkerNeeds) -> None:
        self._check_storage(needs)
        with self._lock:
            if self._services is None:
                # Pods that have an identity of their own find what it opens.
                found = {} if self._options.service_account else needs.found()
                self._services = self._runtimes(Lent(given=needs.environment, found=found))
                self._recipe = self._services.recipe(needs.packages)
        self._check_way(self._sizes.ready(self._options.memory))

    def runtimes(self, bucket: str) -> Services:
        return self._runtimes(Lent())

    def invoke(self, payload: bytes, activation: Activation) -> bytes:
        memory = self._options.memory if activation.memory is None else -(-activation.memory >> 20)
        there = self._sizes.ready_for_message(memory)
        message = _Message(framed=activation.deliver is not None or self._by_event)
        activation.stoppable(message.stop)
        sent = time.time()
        try:
            with self._under_way.one((InvocationError,), lambda error: self._explained(error, there, message, sent)):
                if self._by_event:
                    return self._carry_event(there, payload, activation, message)
                return self._carry(there, payload, activation, message)
        finally:
            activation.end()

    def tail(self, take: knative_tail.Take) -> AbstractContextManager[None]:
        return knative_tail.tail(self._cluster, take)

    def read_log(self, job: str, call: int, since: float) -> Iterator[str]:
        return knative_tail.read(self._cluster, job, call, since)

    def close(self) -> None:
        if (left := self._under_way.close()) and self._by_event:
            text = "%d messages may go on until their calls end, or %d s are over: with carrier event nobody stops them"
            logger.warning(text, left, self._options.max_time)
        self._client.end()
        self._pods.close()
        if self._inbox is not None:
            self._inbox.close()

    # -- services

    def _runtimes(self, lent: Lent) -> Services:
        options = self._options
        setup = Setup(
            max_time=options.max_time,
            timeout=options.timeout,
            event=self._by_event,
            container_concurrency=options.container_concurrency,
            min_scale=options.min_scale,
            max_scale=options.max_scale,
            cpu=options.cpu,
            cpu_limit=options.cpu_limit,
            service_account=options.service_account,
            pull_secret=options.pull_secret,
            node_selector=options.node_selector,
            environment=options.environment,
            annotations=options.annotations,
            cluster_local=options.cluster_local,
        )
        recipe = Recipe(base=options.base or "", dockerfile=options.dockerfile, requirements=options.requirements)
        images = ServiceImages(options.image, push=options.push)
        return Services(self._cluster, recipe, images, setup, options.memory, options.start_timeout, lent)

    def _make(self, memory: int) -> There:
        assert self._services is not None
        assert self._recipe is not None
        return self._services.ensure(self._recipe, memory, lambda line: logger.info("%s", line))

    def _explained(self, error: Exception, there: There, message: _Message, sent: float) -> InvocationError:
        """What befell a message that was sent at a time, and what is known of why."""
        assert isinstance(error, InvocationError)
        if message.stopped and not self._by_event:
            text = f"a message for the service {there.name} was broken off, to stop a call of it"
            return InvocationError(text, reason=Reason.UNAVAILABLE, retryable=True)
        ends = self._ends(there, sent) if error.reason == Reason.DIED and not self._by_event else []
        if not ends:
            return error
        reason = Reason.OUT_OF_MEMORY if any(end.is_out_of_memory for end in ends) else Reason.DIED
        ways = "; ".join(knative_pods.told(self._cluster, end) for end in ends[:_SHOWN_ENDS])
        return InvocationError(f"{error}; {ways}", reason=reason, retryable=True)

    def _ends(self, there: There, since: float) -> list[End]:
        """How containers of a service have ended since a time, as far as one may see that."""
        for look in range(_LOOKS):
            if look and self._under_way.closed.wait(_PAUSE):
                break
            try:
                pods = self._cluster.pods(there.name)
            except (ConfigError, InvocationError) as error:
                logger.info("nobody knows how a container of %s ended: %s", there.name, error)
                break
            ends = [end for pod in pods if (end := knative_ready.end_since(pod, since))]
            if ends or not pods:
                return sorted(ends, key=lambda end: not end.is_out_of_memory)
        return []

    # -- requests

    def _carry(self, there: There, payload: bytes, activation: Activation, message: _Message) -> bytes:
        """Post the message; return the reply. Raises ``InvocationError``."""
        accepted = protocol.BYTES if activation.deliver is None else protocol.FRAMES
        with self._posted(there, payload, message, {"Accept": accepted}) as (answer, nonce):
            kind = answer.headers.get("Content-Type")
            if kind == protocol.BYTES:
                return self._verified(there, nonce, answer.content)
            return self._read(there, nonce, answer, activation, message)

    def _carry_event(self, there: There, payload: bytes, activation: Activation, message: _Message) -> bytes:
        """Post the message; return the reply that comes by storage. Raises ``InvocationError``.

        The answer that has begun is left open, as long as it is: for Knative the pod has a request then.
        """
        assert self._inbox is not None
        with self._inbox.expect() as expected:
            expected.secret = there.key
            place = event_place(self._inbox, expected)
            del place["secret"]  # the worker has it
            headers = {protocol.PLACE: json.dumps(place, separators=(",", ":"))}
            with self._posted(there, payload, message, headers) as (answer, nonce):
                first = frames.read(answer.raw.read)
                if first is None:
                    text = f"the service {there.name} broke off its answer"
                    raise InvocationError(text, reason=Reason.DIED, retryable=True)
                begun = json.loads(self._verified(there, nonce, first[1]))
                limit = allowed(activation, self._options.max_time) + LATE
                with self._pods.watching(begun["pod"], begun["since"], expected) as watched:
                    stored = expected.wait(time.monotonic() + limit)
                if stored is None and watched.end is not None:
                    stored = self._left_by(watched.end, expected)
        if stored is None:
            text = f"no word came of an event for the service {there.name} within {limit:.0f} s"
            raise InvocationError(text, reason=Reason.DIED, retryable=True)
        return opened(json.loads(stored))

    def _left_by(self, end: InvocationError, expected: Expected) -> bytes:
        """What a pod has stored before it ended. Raises ``end`` if that is nothing."""
        assert self._inbox is not None
        try:
            stored = self._inbox.take(expected)
        except InvocationError as error:
            raise end from error
        expected.drop()
        return stored

    @contextmanager
    def _posted(
        self, there: There, payload: bytes, message: _Message, more: Mapping[str, str]
    ) -> Iterator[tuple[requests.Response, str]]:
        """Within the ``with`` block there is a worker's answer to a message, and the nonce. Raises ``InvocationError``.

        ``more``: headers.
        """
        url, headers = self._way(there)
        nonce = secrets.token_hex(8)
        stop = ",".join(map(str, sorted(message.send())))
        seconds = str(self._options.max_time)
        name = protocol.request_name(nonce, seconds, stop, more.get(protocol.PLACE, ""))
        headers |= {
            "Content-Type": protocol.BYTES,
            "Accept-Encoding": "identity",
            protocol.SECONDS: seconds,
            protocol.PYTHON: f"{sys.version_info.major}.{sys.version_info.minor}",
            protocol.NONCE: nonce,
            protocol.SIGNATURE: wire.sign(there.key, name, payload).hex(),
            **({protocol.STOP: stop} if stop else {}),
            **more,
        }
        began = time.monotonic()
        try:
            limits = _CONNECT_LIMIT, self._limit + LATE
            with self._client.send("POST", url, headers, payload, limits, message.exchange) as answer:
                status, kind = answer.status_code, answer.headers.get("Content-Type")
                if (status, kind) in _WORKERS:
                    yield answer, nonce
                    return
                if status in (403, 404):  # what is known of it may not be true any more
                    self._sizes.forget(there)
                raise knative_errors.refused(answer, there.name, time.monotonic() - began, self._limit)
        except HTTP_ERRORS as error:
            raise knative_errors.not_carried(error, there.name, url) from error

    def _read(
        self, there: There, nonce: str, answer: requests.Response, activation: Activation, message: _Message
    ) -> bytes:
        """Take in an answer that comes in parts; return the last of it."""
        assert activation.deliver is not None
        while (frame := frames.read(answer.raw.read)) is not None:
            kind, body = frame
            if kind == Kind.DELIVER:
                activation.deliver(self._verified(there, nonce, body))
            message.was_heard()
            if kind in (Kind.REPLY, Kind.REFUSED):
                answer.raw.read()  # the end, so that the connection can be used again
                if kind == Kind.REPLY:
                    return self._verified(there, nonce, body)
                raise knative_errors.ours(body)
        raise InvocationError(f"the service {there.name} broke off its answer", reason=Reason.DIED, retryable=True)

    @staticmethod
    def _verified(there: There, nonce: str, signed: bytes | bytearray) -> bytes:
        try:
            return bytes(wire.verify(there.key, protocol.reply_name(nonce), signed))
        except IntegrityError as error:
            text = f"a reply of the service {there.name} is not signed with its key: somebody else has answered"
            raise InvocationError(text, reason=Reason.DIED, retryable=True) from error

    def _way(self, there: There) -> tuple[str, dict[str, str]]:
        """Where to post to, and the header for it."""
        if self._options.ingress is None:
            return there.url, {}
        return f"{self._options.ingress.rstrip('/')}/", {"Host": urlsplit(there.url).netloc}

    # -- what can be seen beforehand

    def _check_storage(self, needs: WorkerNeeds) -> None:
        """Raise ``ConfigError`` for a storage at an address that means another machine to a pod."""
        options = self._options
        if options.ca_bundle is not None and not os.path.exists(options.ca_bundle):
            raise ConfigError(f"there is no file {options.ca_bundle}: knative.ca_bundle names certificates to trust")
        if self._by_event and self._inbox is None:
            raise ConfigError(
                "knative.carrier is event, and replies to events come by storage, which pods do not reach: set storage"
                " to aws_s3 or ibm_cos"
            )
        host = urlsplit(needs.endpoint or "").hostname or ""
        if _is_here(host) and not _is_here(urlsplit(self._cluster.server).hostname or ""):
            raise ConfigError(
                f"pods cannot reach the storage at {needs.endpoint}, which is this machine as seen by itself: let it"
                " listen on an address that they see"
            )

    def _check_way(self, there: There) -> None:
        way = urlsplit(self._way(there)[0])
        host = way.hostname or ""
        if way.scheme == "http" and not _is_here(host) and not host.endswith((".svc", ".svc.cluster.local")):
            text = "what travels to %s is signed, but not encrypted: who is on the way can read functions and data"
            logger.warning(text, host)


class _Message:
    """A message under way, as those see it who want to stop calls of it.

    Before it is sent it can say which. Then only its connection can be closed, which ends the call that runs. What is
    known of the others should have come before: so that waits for the first word of a worker, which comes after a
    second, or as soon as there is something to tell.
    """

    def __init__(self, *, framed: bool) -> None:
        """``framed``: whether the worker says anything before all is done."""
        self.exchange = Exchange()
        self.stopped = False
        self._lock = threading.Lock()
        self._sent = False
        self._heard = not framed
        self._early: frozenset[int] = frozenset()

    def stop(self, calls: frozenset[int]) -> None:
        with self._lock:
            if not self._sent:
                self._early |= calls
                return
            self.stopped = True
            if self._heard:
                self.exchange.cut()

    def send(self) -> frozenset[int]:
        """The calls that are to be stopped when they come to run."""
        with self._lock:
            self._sent = True
            return self._early

    def was_heard(self) -> None:
        with self._lock:
            self._heard = True
            if self.stopped:
                self.exchange.cut()


def _is_here(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
