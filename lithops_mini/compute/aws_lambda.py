"""Calls in functions of AWS Lambda, each message an invocation whose answer is the reply."""

from __future__ import annotations

import json
import logging
import threading
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from lithops_mini.compute import aws_charges, aws_errors, aws_tail, function
from lithops_mini.compute.aws_invoke import ACTIVE, Invocations, allow
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.compute.function import Sizes, Told, UnderWay
from lithops_mini.compute.inbox import Expected, Inbox
from lithops_mini.errors import ConfigError, InvocationError, Reason
from lithops_mini.records import Platform, Requests
from lithops_mini.runtimes.aws import AWS_ERRORS, Aws, connections
from lithops_mini.runtimes.aws_lambda import EVENT_AGE, Functions
from lithops_mini.runtimes.connections import Connections
from lithops_mini.runtimes.function import LOSSES_PREFIX, Setup
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.storage.aws_s3 import AwsOptions
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.worker.aws_lambda import MAX_EVENT, MAX_MESSAGE, WORKER_PREFIX, seal

logger = logging.getLogger("lithops_mini.aws_lambda")

# Lambda's limits of a function's memory, in MiB.
_LEAST_MEMORY, _MOST_MEMORY = 128, 10240
_MOST_TIME = 900  # seconds of an invocation
LOG_GROUP = "/aws/lambda/lithops-mini"


@dataclass(frozen=True)
class AwsLambdaOptions(AwsOptions):
    """Settings of the aws_lambda compute backend."""

    role: str | None = field(
        default=None,
        metadata={
            "help": "ARN of the role that functions have; `lithops-mini aws setup` makes one and writes it here.",
            "pattern": r"^arn:[a-z-]+:iam::\d{12}:role/.+$",
        },
    )
    max_workers: int = field(
        default=256, metadata={"help": "Invocations at once; each takes a thread of the client.", "ge": 1, "le": 10_000}
    )
    memory: int = field(
        default=1769,
        metadata={
            "help": "MiB of the functions for jobs that set no runtime_memory; 1769 come with one processor.",
            "ge": _LEAST_MEMORY,
            "le": _MOST_MEMORY,
        },
    )
    carrier: Literal["reply", "event"] = field(
        default="reply",
        metadata={
            "help": "How replies come back: as Lambda's answer, or as an object in storage, for calls of many minutes."
        },
    )
    architecture: Literal["x86_64", "arm64"] = field(
        default="x86_64", metadata={"help": "Processor of the functions; arm64 costs a fifth less."}
    )
    max_time: int = field(
        default=_MOST_TIME,
        metadata={
            "help": "Seconds an invocation may take, whatever the timeout of its calls.",
            "ge": 3,
            "le": _MOST_TIME,
        },
    )
    disk: int = field(default=512, metadata={"help": "MiB of /tmp.", "ge": 512, "le": 10_240})
    requirements: str | None = field(
        default=None, metadata={"help": "A requirements.txt: packages that come in layers, or in an image."}
    )
    package: Literal["auto", "zip", "image"] = field(
        default="auto",
        metadata={"help": "What functions are: a zip with layers, or an image; auto: a zip if the packages fit."},
    )
    base: str | None = field(
        default=None,
        metadata={
            "help": "Image with Python that functions' images are built on; by default python:<version>-slim. `host`"
            " packs the interpreter of this machine."
        },
    )
    dockerfile: str | None = field(
        default=None, metadata={"help": "A Dockerfile whose image functions' images are built on, instead of base."}
    )
    subnets: tuple[str, ...] = field(
        default=(), metadata={"help": "Subnets of your VPC that the functions are in; they then need a way to S3."}
    )
    security_groups: tuple[str, ...] = field(
        default=(), metadata={"help": "Security groups of the functions in those subnets."}
    )
    environment: Mapping[str, str] = field(
        default_factory=dict,
        repr=False,
        metadata={"help": "Environment variables of the functions themselves, at most 4 KB.", "hidden": True},
    )
    tags: Mapping[str, str] = field(default_factory=dict, metadata={"help": "Tags of the functions, for the bill."})
    log_group: str = field(
        default=LOG_GROUP, metadata={"help": "Group of CloudWatch Logs that the functions write to.", "min_length": 1}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.subnets) != bool(self.security_groups):
            raise ValueError("subnets and security_groups belong together: give both or neither")


class _Function(NamedTuple):
    """A function that is ready, and the key of its sealed events, if it takes any."""

    name: str
    seal: str


class AwsLambdaCompute(ComputeBackend):
    """Functions of AWS Lambda, one for each size of memory, made when they are first needed.

    Workers have the role of the function, and no other credentials. A call that runs cannot be stopped from here: it
    ends by itself, by its timeout, or with the time of its invocation.
    """

    Options = AwsLambdaOptions
    shared_sections: ClassVar[Mapping[str, type[Any]]] = {"aws": AwsOptions}
    max_payload = MAX_MESSAGE
    max_reply = MAX_MESSAGE
    composes: ClassVar[bool] = False  # a function has the worker only, and its role may not invoke
    keeps_log: ClassVar[bool] = True
    stops = False

    def __init__(self, options: AwsLambdaOptions) -> None:
        self._options = options
        self._by_event = options.carrier == "event"
        if self._by_event:
            self.max_payload = MAX_EVENT
        self._aws = Aws(options)
        self._lock = threading.Lock()
        self._under_way = UnderWay("aws_lambda")
        self._sizes = Sizes(self._make)
        self._recipe: Recipe | None = None
        self._functions: Functions | None = None
        self._connections: Connections | None = None
        self._invocations: Invocations | None = None
        self._client: Any = None
        self._inbox: Inbox | None = None
        self._concurrency = options.max_workers
        self.usual_memory = options.memory << 20
        self.most_memory = _MOST_MEMORY << 20
        self.max_time, self.most_time = options.max_time, _MOST_TIME

    @property
    def concurrency(self) -> int:
        return self._concurrency

    @property
    def platform(self) -> Platform:
        options = self._options
        return Platform("aws_lambda", options.architecture, options.memory, options.disk, self._aws.region or "")

    @property
    def reaches_files(self) -> bool:
        return False

    def use_inbox(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def deploy(self, needs: WorkerNeeds) -> None:
        self._check_storage(needs)
        with self._lock:
            if self._functions is None:
                self._functions = self.runtimes("" if self._inbox is None else self._inbox.bucket)
                self._recipe = self._functions.recipe(needs.packages)
                self._concurrency = min(self._options.max_workers, self._functions.concurrency())
            if self._client is None:
                # Events are answered at once, and few are sent at a time.
                allow(ACTIVE if self._by_event else self._concurrency)
                self._connect()
        self._sizes.ready(self._options.memory)

    def invoke(self, payload: bytes, activation: Activation) -> bytes:
        memory = self._options.memory if activation.memory is None else -(-activation.memory >> 20)
        memory = max(memory, _LEAST_MEMORY)
        there = self._function(memory)
        with self._under_way.one(AWS_ERRORS, lambda error: self._not_invoked(error, there)):
            try:
                if self._inbox is None:
                    event = _event(payload)
                    del payload
                    told = self._ask(there, event, activation)
                else:
                    with self._inbox.expect() as expected:
                        make = _sealed if self._by_event else _placed
                        event = make(there, payload, self._inbox, expected)
                        del payload
                        carry = self._carry_event if self._by_event else self._carry
                        told = carry(there, event, expected, activation)
            finally:
                activation.end()
        if "spent" in told:
            activation.invocation = aws_charges.counted(told["spent"], self._options.max_time, memory)
        elif "stored" in told and activation.invocation is not None:
            activation.invocation = activation.invocation._replace(requests=Requests(puts=1))
        return function.opened(told)

    def tail(self, take: aws_tail.Take) -> AbstractContextManager[None]:
        client = self._aws.client("logs", retries={"total_max_attempts": 1}, read_timeout=20)
        return aws_tail.tail(client, self._options.log_group, take)

    def read_log(self, job: str, call: int, since: float) -> Iterator[str]:
        client = self._aws.client("logs", retries={"mode": "standard", "total_max_attempts": 6})
        return aws_tail.read(client, self._options.log_group, job, call, since)

    def log_url(self, worker_id: str = "") -> str | None:
        stream = worker_id.removeprefix(WORKER_PREFIX).rpartition(".")[0]
        return aws_tail.console_url(self._aws.client("logs"), self._options.log_group, stream)

    def close(self) -> None:
        if left := self._under_way.close():
            text = "%d invocations go on until their calls end, or %d s are over: AWS Lambda lets nobody stop them"
            logger.warning(text, left, self._options.max_time)
        if self._connections is not None:
            self._connections.end()
            self._client.close()
        if self._inbox is not None:
            self._inbox.close()

    # -- functions

    def runtimes(self, bucket: str) -> Functions:
        options = self._options
        if options.role is None:
            raise ConfigError(
                "aws_lambda.role is not set, and functions of AWS Lambda must have a role: lithops-mini aws setup makes"
                " one and writes it to the configuration"
            )
        setup = Setup(
            role=options.role,
            architecture=options.architecture,
            timeout=options.max_time,
            disk=options.disk,
            subnets=options.subnets,
            security_groups=options.security_groups,
            losses=bucket if self._by_event else None,
            environment=options.environment,
            tags=options.tags,
            log_group=options.log_group,
            package=options.package,
        )
        recipe = Recipe(base=options.base or "", dockerfile=options.dockerfile, requirements=options.requirements)
        return Functions(self._aws, recipe, setup, options.memory)

    def _function(self, memory: int) -> _Function:
        """The function with so many MiB. Raises ``InvocationError``."""
        if memory > _MOST_MEMORY:
            text = f"functions of AWS Lambda have at most {_MOST_MEMORY:,} MiB, and {memory:,} were asked for"
            raise InvocationError(text, reason=Reason.REFUSED)
        return self._sizes.ready_for_message(memory)

    def _make(self, memory: int) -> _Function:
        assert self._functions is not None
        assert self._recipe is not None
        name = self._functions.ensure(self._recipe, memory, lambda line: logger.info("%s", line))
        if not self._by_event:
            return _Function(name, "")
        assert self._inbox is not None
        made = _Function(name, self._functions.seal(name))
        self._inbox.watch_losses(f"{LOSSES_PREFIX}{name}/", aws_errors.lost_event)
        return made

    # -- carriers

    def _carry(self, there: _Function, event: bytearray, expected: Expected, activation: Activation) -> Told:
        """Send a message, and return what the answer says; or the stored reply, if that is lost."""

        def is_lost(error: Exception) -> bool:
            return aws_errors.is_lost(error) and not self._under_way.closed.is_set()

        most = function.allowed(activation, self._options.max_time)
        return function.answered(lambda: self._ask(there, event, activation), expected, most, is_lost)

    def _carry_event(self, there: _Function, event: bytearray, expected: Expected, activation: Activation) -> Told:
        """Have a message queued, and return what the stored reply says."""
        self._send(there, event, {"X-Amz-Invocation-Type": "Event"})
        limit = EVENT_AGE + function.allowed(activation, self._options.max_time) + function.LATE
        stored = expected.wait(time.monotonic() + limit)
        if stored is None:
            text = f"no word came of an event for the function {there.name} within {limit:.0f} s"
            raise InvocationError(text, reason=Reason.DIED, retryable=True)
        return dict(json.loads(stored))

    def _ask(self, there: _Function, event: bytearray, activation: Activation) -> Told:
        headers, said = self._send(there, event, {"X-Amz-Log-Type": "Tail"})
        activation.invocation = aws_charges.reported(headers.get("X-Amz-Log-Result", ""))
        if "X-Amz-Function-Error" in headers:
            raise aws_errors.failed(said, headers.get("X-Amz-Log-Result", ""), there.name)
        return dict(json.loads(said))

    def _send(self, there: _Function, event: bytearray, headers: Mapping[str, str]) -> tuple[Mapping[str, str], bytes]:
        assert self._invocations is not None
        return self._invocations.send(there.name, event, headers)

    def _not_invoked(self, error: Exception, there: _Function) -> InvocationError:
        if isinstance(error, self._client.exceptions.ResourceNotFoundException):
            self._sizes.forget(there)
        return aws_errors.not_invoked(error, there.name)

    # -- requests

    def _connect(self) -> None:
        self._client = self._aws.client(
            "lambda",
            retries={"total_max_attempts": 1},  # whether a message is sent again is decided by who knows what is in it
            connect_timeout=10,
            read_timeout=self._options.max_time + function.LATE,
            max_pool_connections=self.concurrency,
            tcp_keepalive=True,
        )
        self._connections = connections(self._client)
        self._invocations = Invocations(self._client, self._aws.credentials())

    def _check_storage(self, needs: WorkerNeeds) -> None:
        """Raise ``ConfigError`` for a storage that is not open to a role."""
        options = self._options
        if self._by_event and self._inbox is None:
            raise ConfigError(
                "aws_lambda.carrier is event, and replies to events come by storage, which functions do not reach: set"
                " storage to aws_s3"
            )
        if "botocore" not in needs.packages and (needs.environment or needs.found()):
            raise ConfigError(
                "functions of AWS Lambda have the credentials of their role only, which open Amazon S3 and not this"
                " storage: set storage to aws_s3"
            )
        host = urlsplit(needs.endpoint or "").hostname or ""
        if needs.endpoint and needs.endpoint != options.endpoint_url and not host.endswith(".amazonaws.com"):
            raise ConfigError(
                f"functions of AWS Lambda have the credentials of their role only, which do not open the storage at"
                f" {needs.endpoint}: leave endpoint_url out, for Amazon S3"
            )


def _placed(_: _Function, payload: bytes, inbox: Inbox, expected: Expected) -> bytearray:
    return _event(payload, function.late_place(inbox, expected))


def _sealed(there: _Function, payload: bytes, inbox: Inbox, expected: Expected) -> bytearray:
    sealed = seal(there.seal, function.event_place(inbox, expected), payload)
    return bytearray(json.dumps(sealed, separators=(",", ":")).encode())


def _event(payload: bytes, place: Mapping[str, Any] | None = None) -> bytearray:
    told = b"" if place is None else b',"place":%b' % json.dumps(place, separators=(",", ":")).encode()
    return bytearray(b'{"payload":"%b"%b}' % (b64encode(payload), told))
