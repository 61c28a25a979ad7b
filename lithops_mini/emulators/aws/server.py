"""The emulator as a whole: what listens, what it is made of, how it ends."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flask import Flask
from moto.core.config import default_user_config
from moto.ecr.models import Repository
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from lithops_mini.emulators.aws import (
    account_settings,
    deployments,
    ecr,
    permissions,
    refusals,
    rules,
    signatures,
    stacks,
)
from lithops_mini.emulators.aws.account import Keys, make_administrator
from lithops_mini.emulators.aws.application import MotoConnection, call
from lithops_mini.emulators.aws.events import EventQueue
from lithops_mini.emulators.aws.faults import Dice
from lithops_mini.emulators.aws.functions import Function, keep_logging
from lithops_mini.emulators.aws.invocations import invoke, is_invocation
from lithops_mini.emulators.aws.lambda_data_plane import DataPlane
from lithops_mini.emulators.aws.registry import LAMBDA, Registry
from lithops_mini.emulators.aws.sandboxes import Sandboxes
from lithops_mini.emulators.aws.settings import Faults, Limits
from lithops_mini.emulators.control import OWN, allow_many_files, control, usual
from lithops_mini.emulators.front import Front, Request, Response, serve
from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.base import Tell

_LOCKS = 1024


@dataclass(frozen=True)
class Settings:
    """What an emulator is to be."""

    port: int = 0  # 0: any that is free
    sandbox: str = "process"
    limits: Limits = field(default_factory=Limits)
    faults: Faults = field(default_factory=Faults)


class Emulator:
    """A local AWS, listening from now on until ``close``, which removes everything it has started.

    One for a process: moto keeps its resources in the process.
    """

    def __init__(self, given: Settings, tell: Tell) -> None:
        self._registry = Registry(self._check_repository)
        ecr.address_repositories(self._registry.address)
        try:
            self._sandboxes = Sandboxes(given.sandbox, self._registry, tell)
        except BaseException:
            self._registry.close()
            raise
        allow_many_files()
        default_user_config["iam"]["load_aws_managed_policies"] = True
        stacks.install()
        keep_logging()
        self._dice = Dice(given.faults)
        self._requests: Counter[str] = Counter()
        self._counting = threading.Lock()
        # moto loses an object's bytes while the object is written again: one request at a time for each path
        self._objects = [threading.Lock() for _ in range(_LOCKS)]
        self._moto = DomainDispatcherApplication(_service)
        self.administrator: Keys = make_administrator()
        self._plane = DataPlane(lambda function: self._sandboxes.make(function, self.url), self._dice, given.limits)
        self._queue = EventQueue(self._plane, self._dice, self._may_write)
        self._queue.serve_services()
        rules.install(self._queue.put)
        try:
            self._front = serve(given.port, lambda: Front(given.port, self._answer, connection=MotoConnection))
        except ConfigError:
            self._end()
            raise
        self.url = self._front.url

    @property
    def not_enforced(self) -> tuple[str, ...]:
        """What is otherwise than on AWS because of what functions run in."""
        return self._sandboxes.not_enforced

    def close(self) -> None:
        self._front.shutdown()
        self._front.server_close()
        self._end()

    def _end(self) -> None:
        self._sandboxes.end()
        self._queue.close()
        self._plane.close()
        self._sandboxes.close()
        self._registry.close()

    def _answer(self, request: Request) -> Response:
        if request.path.startswith(OWN):
            return self._own(request)
        try:
            signed = signatures.check(request)
            needed = permissions.needs(request, signed)
            self._check(request, signed, needed)
            if signed.service == "cloudformation":
                stacks.check_capabilities(request)
        except signatures.Refused as error:
            return refusals.response(request, error)
        if signed.service == "lambda" and is_invocation(request):
            return invoke(request, signed.region, self._plane, self._queue)
        if ("lambda:GetAccountSettings", None) in needed:
            return account_settings.describe(signed.region, self._plane.limits)
        if signed.service == "ecr" and ecr.is_login(request):
            return ecr.log_in(signed, self._registry)
        if signed.service == "lambda" and (refusal := self._check_deployment(request, signed, needed[0][0])):
            return refusal
        in_its_name = stacks.in_the_name_of(lambda *need: self._check(request, signed, [need]))
        with in_its_name, self._objects[hash(request.path) % _LOCKS]:
            response = call(self._moto, request)
        if signed.service == "s3" and (way := self._plane.limits.way(len(request.body) + len(response.body))):
            time.sleep(way)  # as if it were far from here
        if (
            response.status == 404
            and b"NoSuchBucket" not in response.body
            and permissions.hides_absence(request, signed)
        ):
            return refusals.response(request, signatures.Refused("AccessDenied", "Access Denied"))
        if ("lambda:GetFunction", None) in needed and response.status == 200:
            try:
                self._check(request, signed, [("lambda:ListTags", None)])
            except signatures.Refused as error:
                return refusals.without_tags(response, error)
        return response

    def _check(self, request: Request, signed: signatures.Signed, needed: Sequence[permissions.Need]) -> None:
        """Count what is needed, and return if it is permitted. ``Refused`` otherwise."""
        with self._counting:
            self._requests.update(action for action, _ in needed)
        permissions.check(request, signed, needed)

    def _check_repository(self, principal: Any, action: str, repository: Repository) -> None:
        """Count and check what an engine does with the registry; ``Refused`` if it may not."""
        if principal is LAMBDA:
            permitted = ecr.lets_lambda_pull(repository)
        else:
            with self._counting:
                self._requests[action] += 1
            permitted = permissions.permits(permissions.policies_of(principal), action, repository.arn, {})
        if not permitted:
            who = "Lambda" if principal is LAMBDA else principal.arn
            text = f"User: {who} is not authorized to perform: {action} on resource: {repository.arn}"
            raise signatures.Refused("AccessDenied", text)

    def _check_deployment(self, request: Request, signed: signatures.Signed, action: str) -> Response | None:
        def may(action: str) -> bool:
            try:
                self._check(request, signed, [(action, None)])
            except signatures.Refused:
                return False
            return True

        def check_image(uri: str) -> Response | None:
            return ecr.check_image(uri, self._registry, may, self._sandboxes.image_size)

        return deployments.check(request, action, signed.region, check_image)

    def _may_write(self, function: Function, bucket: str, key: str) -> bool:
        resource = f"arn:aws:s3:::{bucket}/{key}"
        return permissions.permits(permissions.role_policies(function.role), "s3:PutObject", resource, {})

    def _own(self, request: Request) -> Response:
        state = lambda: {**self._plane.state(), "events": self._queue.pending()}  # noqa: E731
        return control(request, usual(self._dice.change, self._plane.limit, state, self._requests))


def _service(name: Any) -> Flask:
    """moto's application for a service; an error of its own is answered with status 500, and told on stderr."""
    application = create_backend_app(name)
    application.debug = False
    return application
