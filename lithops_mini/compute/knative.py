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
from dataclasses import dataclass, field
from typing import ClassVar, Literal
from urllib.parse import urlsplit

import requests

from lithops_mini import wire
from lithops_mini.compute import knative_errors, knative_pods, knative_tail
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.compute.function import LATE, Sizes, UnderWay, allowed, event_place, opened
from lithops_mini.compute.inbox import Expected, Inbox
from lithops_mini.compute.knative_errors import HTTP_ERRORS
from lithops_mini.compute.knative_http import Post, Posts
from lithops_mini.compute.knative_pods import PodWatch
from lithops_mini.errors import ConfigError, IntegrityError, InvocationError, Reason
from lithops_mini.runtimes import knative_ready
from lithops_mini.runtimes.cluster import Cluster
from lithops_mini.runtimes.knative import Services, There
from lithops_mini.runtimes.knative_image import ServiceImages
from lithops_mini.runtimes.knative_ready import End
from lithops_mini.runtimes.knative_service import MOST_TIMEOUT, START, Lent, Setup
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
_NAME = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"


@dataclass(frozen=True)
class KnativeOptions:
    """Settings of the knative compute backend."""

    kubeconfig: str | None = field(
        default=None,
        metadata={"help": "File that says how to reach the cluster; by default as kubectl finds it, or a pod's own."},
    )
    context: str | None = field(default=None, metadata={"help": "Context of the kubeconfig; by default its current."})
    namespace: str | None = field(
        default=None,
        metadata={
            "help": "Namespace of the services; by default the context's.",
            "pattern": r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        },
    )
    ingress: str | None = field(
        default=None,
        metadata={
            "help": "URL of the cluster's ingress as it is reached from here, where the URLs of services are not, as in"
            " http://127.0.0.1:31080.",
            "pattern": "^https?://[^/]",
        },
    )
    cluster_local: bool = field(
        default=False, metadata={"help": "Whether services are reached from within the cluster only."}
    )
    ca_bundle: str | None = field(
        default=None, metadata={"help": "File of the certificates to trust, for a cluster with ones of its own."}
    )
    image: str | None = field(
        default=None,
        metadata={
            "help": "Repository of the images, without a tag, as in registry.example.com/team/lithops-mini: built by a"
            " Docker engine, pulled by the cluster. With a tag or a digest: an image that is used as it is."
        },
    )
    push: bool = field(
        default=True,
        metadata={"help": "Whether images are pushed; false where the cluster has those of the Docker engine."},
    )
    base: str | None = field(
        default=None,
        metadata={
            "help": "Image with Python that the images are built on; by default python:<version>-slim. `host` packs"
            " the interpreter of this machine."
        },
    )
    dockerfile: str | None = field(
        default=None, metadata={"help": "A Dockerfile whose image the images are built on, instead of base."}
    )
    requirements: str | None = field(
        default=None, metadata={"help": "A requirements.txt: packages that are installed in the images."}
    )
    max_workers: int = field(
        default=256, metadata={"help": "Requests at once; each takes a thread of the client.", "ge": 1, "le": 10_000}
    )
    min_scale: int = field(default=0, metadata={"help": "Pods that are kept while nothing runs.", "ge": 0})
    max_scale: int = field(default=100, metadata={"help": "Pods of a service, at most.", "ge": 1})
    container_concurrency: int = field(
        default=1,
        metadata={"help": "Messages that a container runs at once, each in its process.", "ge": 1, "le": 1000},
    )
    memory: int = field(
        default=2048, metadata={"help": "MiB that a call may hold, for jobs that set no runtime_memory.", "ge": 64}
    )
    cpu: float = field(default=1.0, metadata={"help": "Processors that a pod asks for, 0.5 for half of one.", "gt": 0})
    cpu_limit: float | None = field(
        default=None, metadata={"help": "Processors that a pod may use; by default as many as it asks for.", "gt": 0}
    )
    carrier: Literal["reply", "event"] = field(
        default="reply",
        metadata={
            "help": "How replies come back: as the answer to a request, or as an object in storage, for calls that last"
            " longer than connections do."
        },
    )
    max_time: int = field(
        default=570,
        metadata={
            "help": f"Seconds a call may run; the timeout of the services is {START} more, and Knative permits"
            f" {MOST_TIMEOUT} unless its operator says otherwise.",
            "ge": 1,
        },
    )
    service_timeout: int | None = field(
        default=None,
        metadata={
            "help": f"Seconds of a service's timeout, where it is not {START} more than max_time; with carrier event"
            f" at most {MOST_TIMEOUT} by default.",
            "ge": 1,
        },
    )
    service_account: str | None = field(
        default=None,
        metadata={"help": "Service account of the pods, where they have an identity of their own.", "pattern": _NAME},
    )
    pull_secret: str | None = field(
        default=None,
        metadata={"help": "Secret of the namespace that the image is pulled with.", "pattern": _NAME},
    )
    node_selector: Mapping[str, str] = field(
        default_factory=dict, metadata={"help": "Labels of the nodes that pods run on; Knative must permit it."}
    )
    environment: Mapping[str, str] = field(
        default_factory=dict,
        repr=False,
        metadata={"help": "Environment variables of the containers; not for secrets.", "hidden": True},
    )
    annotations: Mapping[str, str] = field(
        default_factory=dict,
        metadata={"help": "Annotations of the revisions, as in autoscaling.knative.dev/scale-down-delay: 15m."},
    )
    start_timeout: int = field(
        default=300, metadata={"help": "Seconds within which a new service must be ready.", "ge": 1}
    )
    shared_files: bool = field(
        default=False,
        metadata={
            "help": "Whether pods see this machine's files at the same paths, and may write them, so that the storage"
            " localhost is theirs too."
        },
    )

    def __post_init__(self) -> None:
        if self.min_scale > self.max_scale:
            raise ValueError("min_scale is over max_scale")
        if self.cpu_limit is not None and self.cpu_limit < self.cpu:
            raise ValueError("cpu_limit is under cpu")
        if self.timeout < self.max_time + START:
            if self.carrier == "reply":
                raise ValueError(
                    f"service_timeout is under max_time and {START} s: lower max_time, or set carrier to event"
                )
            if self.min_scale < self.max_scale:
                raise ValueError(
                    f"max_time is {self.max_time} s, and a pod that has to go is given {self.timeout} s to end: set"
                    " min_scale to max_scale, so that none has to, or service_timeout to what the cluster permits"
                )
        for name in self.environment:
            if name in _RESERVED or name.startswith("K_"):
                raise ValueError(f"environment: {name} is set by Knative, or by the worker: leave it out")

    @property
    def timeout(self) -> int:
        """Seconds of a service's timeout."""
        if self.service_timeout is not None:
            return self.service_timeout
        needed = self.max_time + START
        return needed if self.carrier == "reply" else min(needed, MOST_TIMEOUT)


_RESERVED = (protocol.PORT, protocol.LANES, protocol.KEY)


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
        self.max_time = options.max_time
        self._limit = float(options.timeout)
        self._cluster = Cluster(options.kubeconfig, options.context, options.namespace, options.ca_bundle)
        self._posts = Posts(self.concurrency, options.ca_bundle)
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
        self._posts.end()
        self._pods.close()
        self._cluster.close()
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
            with self._posts.send(message.post, url, headers, payload, (_CONNECT_LIMIT, self._limit + LATE)) as answer:
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
        self.post = Post()
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
                self.post.cut()

    def send(self) -> frozenset[int]:
        """The calls that are to be stopped when they come to run."""
        with self._lock:
            self._sent = True
            return self._early

    def was_heard(self) -> None:
        with self._lock:
            self._heard = True
            if self.stopped:
                self.post.cut()


def _is_here(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
