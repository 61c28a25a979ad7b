"""The same as ``aws_account`` makes, as a stack of CloudFormation: made, changed and deleted as a whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from botocore.exceptions import ClientError, WaiterError

from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.aws import Aws, code_of, message_of, translated
from lithops_mini.runtimes.aws_account import Say

_TEMPLATE = "template.yaml"
_CAPABILITIES = ["CAPABILITY_NAMED_IAM"]  # the role has a name
_RETRIES = {"mode": "standard", "total_max_attempts": 6}
_WAIT = {"Delay": 5, "MaxAttempts": 180}  # seconds, and how often
_REVIEWED = "REVIEW_IN_PROGRESS"  # the state of one that somebody only plans: nothing goes on
# States of a stack that cannot be changed, because it was never complete or is half deleted.
_DEAD = ("CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_COMPLETE", "ROLLBACK_FAILED")


def template() -> str:
    """The template: bucket, log group and role, each named by a parameter."""
    return resources.files(__package__).joinpath(_TEMPLATE).read_text()


def stack_name(role: str) -> str:
    """The name of the stack that makes a role, which may have characters that names of stacks may not."""
    name = re.sub(r"[^A-Za-z0-9-]", "-", role)
    return name if name[0].isalpha() else f"lithops-mini-{name}"


class Stack:
    """The stack that makes a role. Methods raise ``ConfigError`` and ``InvocationError``."""

    def __init__(self, aws: Aws, role: str, say: Say, *, dry: bool = False) -> None:
        """``dry``: what would be changed is only said. ``ConfigError`` if another stack has the name."""
        self.name = stack_name(role)
        self._say = say
        self._dry = dry
        self._client = aws.client("cloudformation", retries=_RETRIES)
        self._found = self._look()
        if self.there and self.parameters.get("Role") != role:
            raise ConfigError(f"there is a stack {self.name} that setup did not make: name another role with --role")

    @property
    def there(self) -> bool:
        """Whether there is a stack, complete or not."""
        return self._found is not None

    @property
    def parameters(self) -> Mapping[str, str]:
        """Those of the stack; none if there is no stack."""
        given = (self._found or {}).get("Parameters", ())
        return {each["ParameterKey"]: each["ParameterValue"] for each in given}

    def settle(self) -> None:
        """Wait for what goes on, and delete a stack that never was complete, or is half deleted."""
        with translated(f"make the stack {self.name}"):
            self._await_others()
            if self._status in _DEAD:
                self._delete()

    def make(self, parameters: Mapping[str, str]) -> None:
        """Have the stack, which is settled, be as the template and these parameters say."""
        with translated(f"make the stack {self.name}"):
            body = template()
            if not self.there:
                self._change("CreateStack", "stack_create_complete", parameters, body)
            elif self.parameters != parameters or self._template() != body:
                self._change("UpdateStack", "stack_update_complete", parameters, body)

    def remove(self) -> None:
        """Delete the stack if it is there, with all but the bucket."""
        with translated(f"delete the stack {self.name}"):
            self._await_others()
            if self.there:
                self._delete()

    # -- changing

    def _change(self, operation: str, waiter: str, parameters: Mapping[str, str], body: str) -> None:
        request: dict[str, Any] = {
            "StackName": self.name,
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Capabilities": _CAPABILITIES,
        }
        self._say(f"cloudformation:{operation}", request | {"TemplateBody": _TEMPLATE})
        if self._dry:
            return
        send = self._client.create_stack if operation == "CreateStack" else self._client.update_stack
        try:
            number = send(**request, TemplateBody=body)["StackId"]
        except ClientError as error:
            if "No updates are to be performed" in message_of(error):
                return
            raise
        self._await(waiter, number)
        self._found = self._look()

    def _delete(self) -> None:
        assert self._found is not None
        self._say("cloudformation:DeleteStack", {"StackName": self.name})
        if not self._dry:
            self._client.delete_stack(StackName=self.name)
            self._await("stack_delete_complete", self._found["StackId"])
        self._found = None

    def _await_others(self) -> None:
        """Wait for what somebody began, or we before we were interrupted, whatever comes of it."""
        if self._found is None or not self._status.endswith("_IN_PROGRESS") or self._status == _REVIEWED:
            return
        what = {"DELETE": "delete", "UPDATE": "update"}.get(self._status.split("_")[0], "create")
        waiter = "rollback" if self._status.startswith("UPDATE_ROLLBACK") else what
        try:
            self._client.get_waiter(f"stack_{waiter}_complete").wait(
                StackName=self._found["StackId"], WaiterConfig=_WAIT
            )
        except WaiterError as error:
            self._found = self._look()
            if self._status.endswith("_IN_PROGRESS"):
                raise ConfigError(f"the stack {self.name} is still {self._status}: try again later") from error
        self._found = self._look()

    def _await(self, waiter: str, number: str) -> None:
        """Wait for our own change. ``ConfigError`` with what CloudFormation says if it fails."""
        try:
            self._client.get_waiter(waiter).wait(StackName=number, WaiterConfig=_WAIT)
        except WaiterError as error:
            self._found = self._look()
            status = self._status or "gone"
            lines = "".join(f"\n  {line}" for line in self._failures(number))
            raise ConfigError(f"the stack {self.name} is {status}; CloudFormation says:{lines}") from error

    # -- looking

    @property
    def _status(self) -> str:
        return str((self._found or {}).get("StackStatus", ""))

    def _look(self) -> Mapping[str, Any] | None:
        with translated(f"look for the stack {self.name}"):
            try:
                found: Mapping[str, Any] = self._client.describe_stacks(StackName=self.name)["Stacks"][0]
            except ClientError as error:
                if code_of(error) == "ValidationError" and "does not exist" in message_of(error):
                    return None
                raise
        return found

    def _template(self) -> str:
        return str(self._client.get_template(StackName=self.name)["TemplateBody"])

    def _failures(self, number: str) -> list[str]:
        """What failed since the last change was asked for, the first first."""
        lines = []
        pages = self._client.get_paginator("describe_stack_events").paginate(StackName=number)
        for event in (event for page in pages for event in page["StackEvents"]):
            if event["ResourceStatus"].endswith("_FAILED") and event.get("PhysicalResourceId") != number:
                lines.append(
                    f"{event['LogicalResourceId']} {event['ResourceStatus']}: {event.get('ResourceStatusReason', '')}"
                )
            if event.get("ResourceStatusReason") == "User Initiated" and event.get("PhysicalResourceId") == number:
                break
        return lines[::-1]
