"""CloudFormation, as far as moto leaves it out: failures that are told and rolled back, conditions and replacements
when a stack changes, what is retained, lifecycles of buckets, and the permissions of who sends the request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from moto.cloudformation import models, parsing
from moto.cloudformation.exceptions import ValidationError
from moto.cloudformation.models import CloudFormationBackend, Event, Stack
from moto.cloudformation.parsing import ResourceMap
from moto.core.exceptions import ServiceException
from werkzeug.exceptions import HTTPException

from lithops_mini.emulators.aws.signatures import Refused
from lithops_mini.emulators.front import Request

Allow = Callable[[str, str | None], object]
"""Returns if who sends the request may take the action on the resource; ``Refused`` otherwise."""

# The actions that a stack's resource takes in the name of who made the stack: to make it, to remove it, and to give it
# a property. Those of other types are not asked for.
_ACTIONS: dict[str, tuple[str | None, str, dict[str, str]]] = {
    "AWS::S3::Bucket": (
        "s3:CreateBucket",
        "s3:DeleteBucket",
        {"Tags": "s3:PutBucketTagging", "LifecycleConfiguration": "s3:PutLifecycleConfiguration"},
    ),
    "AWS::Logs::LogGroup": (
        "logs:CreateLogGroup",
        "logs:DeleteLogGroup",
        {"Tags": "logs:TagResource", "RetentionInDays": "logs:PutRetentionPolicy"},
    ),
    "AWS::IAM::Role": ("iam:CreateRole", "iam:DeleteRole", {"Tags": "iam:TagRole", "Policies": "iam:PutRolePolicy"}),
    "AWS::IAM::Policy": (None, "iam:DeleteRolePolicy", {"PolicyDocument": "iam:PutRolePolicy"}),
}
_NAMES = {"GroupName", "ManagedPolicyName", "RoleName", "UserName"}


class Unsupported(Exception):
    """A template asks for what the local AWS does not have: the stack fails, and is rolled back."""


_FAILURES = (ServiceException, HTTPException, Refused, Unsupported, NotImplementedError)
_ABSENT = re.compile("NoSuch|NotFound")

_allow: ContextVar[Allow] = ContextVar("allow")


class Failed(Exception):
    """A resource could not be made, changed or removed; ``args[0]`` is its name in the template."""


@contextmanager
def in_the_name_of(allow: Allow) -> Iterator[None]:
    """What stacks do in the ``with`` block is asked of ``allow``."""
    token = _allow.set(allow)
    try:
        yield
    finally:
        _allow.reset(token)


def check_capabilities(request: Request) -> None:
    """``Refused`` if a template makes identities and the request does not say that it may."""
    form = dict(parse_qsl(request.body.decode()))
    if form.get("Action") not in ("CreateStack", "UpdateStack", "CreateChangeSet") or "TemplateBody" not in form:
        return
    resources = (Stack.parse_template(form["TemplateBody"]).get("Resources") or {}).values()
    identities = [each for each in resources if str(each.get("Type")).startswith("AWS::IAM::")]
    named = any(_NAMES & set(each.get("Properties", ())) for each in identities)
    enough = {"CAPABILITY_NAMED_IAM"} if named else {"CAPABILITY_NAMED_IAM", "CAPABILITY_IAM"}
    given = {value for key, value in form.items() if key.startswith("Capabilities.member.")}
    if identities and not enough & given:
        raise Refused("InsufficientCapabilitiesException", f"Requires capabilities : [{min(enough)}]")


class _Resources(ResourceMap):
    """The resources of a stack, each made once those are there that it names."""

    def __init__(self, stack: Stack, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._stack = stack
        self._made: dict[str, dict[str, Any]] = {}  # the properties of each, in the order in which they were made
        self.undoing = False  # whether what is removed was made by what is rolled back

    def __getitem__(self, name: str) -> Any:
        if name in self._parsed_resources:
            return self._parsed_resources[name]
        given = self._resource_json_map[name]
        if not self._holds(given):
            return None
        properties = self._properties(given)
        make, _, of_properties = _ACTIONS.get(given["Type"], (None, None, {}))
        with self._step("CREATE", name, given["Type"]):
            _ask(properties, make, *(action for key, action in of_properties.items() if key in properties))
            resource: Any = parsing.parse_and_create_resource(name, given, self, self._account_id, self._region_name)
            if resource is None and given["Type"] not in parsing.NULL_MODELS:
                raise Unsupported(f"the local AWS has no {given['Type']}")
            _complete(resource, given["Type"], properties)
            self._parsed_resources[name] = resource
            self._made[name] = properties
        return resource

    @property
    def resources(self) -> list[str]:
        return list(self._made)

    def update(self, template: dict[str, Any], parameters: dict[str, Any] | None = None) -> None:
        before = self._resource_json_map
        self._template = template
        self._resource_json_map = template["Resources"]
        if parameters:
            self.input_parameters = parameters
        self.load_mapping()
        self.load_parameters()
        self.load_conditions()
        wanted = [name for name, given in self._resource_json_map.items() if self._holds(given)]
        for name in wanted:
            if name in self._made:
                self._change(name)
            else:
                self[name]
        for name in [each for each in reversed(self._made) if each not in wanted]:
            self._remove(name, before.get(name) or self._resource_json_map[name])

    def delete(self) -> None:
        """Remove all that is not retained. ``Failed`` with what is left, after all others."""
        left = []
        for name in list(reversed(self._made)):
            try:
                self._remove(name, self._resource_json_map[name])
            except Failed:
                left.append(name)
        if left:
            raise Failed(", ".join(left))

    def _holds(self, given: Mapping[str, Any]) -> bool:
        return "Condition" not in given or bool(self.lazy_condition_map[given["Condition"]])

    def _properties(self, given: Mapping[str, Any]) -> dict[str, Any]:
        return dict(parsing.clean_json(given.get("Properties", {}), self))

    def _change(self, name: str) -> None:
        given, old = self._resource_json_map[name], self._parsed_resources[name]
        kind, before, properties = given["Type"], self._made[name], self._properties(given)
        if properties == before:
            return
        make, remove, of_properties = _ACTIONS.get(kind, (None, None, {}))
        place = (self._account_id, self._region_name)
        with self._step("UPDATE", name, kind):
            named = parsing.resource_name_property_from_type(kind)
            if named and properties.get(named) not in (None, old.physical_resource_id):
                keeps = given.get("UpdateReplacePolicy") == "Retain"
                _ask(properties, make, None if keeps else remove, *of_properties.values())
                resource: Any = parsing.parse_and_create_resource(name, given, self, *place)
                if not keeps:
                    self._delete_resource(old, given)
            else:
                changed = [key for key in of_properties if properties.get(key) != before.get(key)]
                _ask(properties, *(of_properties[key] for key in changed))
                resource = parsing.parse_and_update_resource(name, given, self, *place)
                if resource is None and kind != "AWS::Logs::LogGroup":
                    raise Unsupported(f"the local AWS cannot change an {kind}")
                resource = resource or old
            _complete(resource, kind, properties)
            self._parsed_resources[name] = resource
            self._made[name] = properties

    def _remove(self, name: str, given: dict[str, Any]) -> None:
        retained = given.get("DeletionPolicy")
        if retained == "Retain" or (retained == "RetainExceptOnCreate" and not self.undoing):
            self._tell("DELETE_SKIPPED", name, given["Type"])
        else:
            _, remove, _ = _ACTIONS.get(given["Type"], (None, None, {}))
            with self._step("DELETE", name, given["Type"]):
                _ask(self._made[name], remove)
                try:
                    self._delete_resource(self._parsed_resources[name], given)
                except _FAILURES as error:
                    if not _ABSENT.search(str(getattr(error, "error_type", getattr(error, "code", "")))):
                        raise
        del self._parsed_resources[name], self._made[name]

    @contextmanager
    def _step(self, what: str, name: str, kind: str) -> Iterator[None]:
        self._tell(f"{what}_IN_PROGRESS", name, kind)
        try:
            yield
        except _FAILURES as error:
            text = error.args[1] if isinstance(error, Refused) else getattr(error, "message", str(error))
            self._tell(f"{what}_FAILED", name, kind, f'Resource handler returned message: "{text}"')
            raise Failed(name) from error
        self._tell(f"{what}_COMPLETE", name, kind)

    def _tell(self, status: str, name: str, kind: str, reason: str | None = None) -> None:
        there = getattr(self._parsed_resources.get(name), "physical_resource_id", "")
        stack = self._stack
        stack.events.append(Event(stack.stack_id, stack.name, name, there, kind, status, reason, None))


class _Stack(Stack):
    """A stack that is rolled back when something fails."""

    resource_map: _Resources

    @property
    def parameter_list(self) -> list[dict[str, Any]]:
        return [
            each | {"ParameterValue": ",".join(each["ParameterValue"])}
            if isinstance(each["ParameterValue"], list)
            else each
            for each in super().parameter_list
        ]

    @property
    def stack_parameters(self) -> dict[str, Any]:
        return {each["ParameterKey"]: str(each["ParameterValue"]) for each in self.parameter_list}

    @property
    def outputs(self) -> list[dict[str, Any]] | None:
        return super().outputs if self.resource_map.resources else None

    def _create_resource_map(self) -> _Resources:
        given = (self.stack_id, self.name, self.parameters, self.tags, self.region_name, self.account_id)
        resources = _Resources(self, *given, self.template_dict, self.cross_stack_resources)
        resources.load()
        return resources

    def create_resources(self) -> None:
        try:
            super().create_resources()
        except Failed as error:
            text = f"The following resource(s) failed to create: [{error}]. Rollback requested by user."
            self._add_stack_event("ROLLBACK_IN_PROGRESS", text)
            self._end("ROLLBACK", self.resource_map.delete, undoing=True)

    def update(self, template: str, *given: Any, **options: Any) -> None:
        before = self.template, dict(self.parameters)
        parameters = options.get("parameters") or {}
        slots = self.parse_template(template).get("Parameters", {})
        told = {name: str(slot.get("Default", "")) for name, slot in slots.items()} | parameters
        if template == self.template and told == self.stack_parameters:
            raise ValidationError(message="No updates are to be performed.")
        try:
            super().update(template, *given, **options)
        except Failed as error:
            text = f"The following resource(s) failed to update: [{error}]."
            self._add_stack_event("UPDATE_ROLLBACK_IN_PROGRESS", text)
            self.template, self.parameters = before
            self._parse_template()
            back = partial(self.resource_map.update, self.template_dict, self.parameters)
            self._end("UPDATE_ROLLBACK", back, undoing=True)

    def delete(self) -> None:
        self._add_stack_event("DELETE_IN_PROGRESS", "User Initiated")
        self._end("DELETE", self.resource_map.delete)

    def _end(self, what: str, last: Callable[[], None], *, undoing: bool = False) -> None:
        """Do the last thing, and have the status that becomes of it."""
        self.resource_map.undoing = undoing
        try:
            last()
            self.status, reason = f"{what}_COMPLETE", None
        except Failed as error:
            self.status, reason = f"{what}_FAILED", f"The following resource(s) failed to delete: [{error}]."
        self.resource_map.undoing = False
        self._add_stack_event(self.status, reason)


def _ask(properties: Mapping[str, Any], *actions: str | None) -> None:
    allow = _allow.get()
    for action in filter(None, actions):
        allow(action, f"arn:aws:s3:::{properties.get('BucketName', '*')}" if action.startswith("s3:") else None)


def _complete(resource: Any, kind: str, properties: Mapping[str, Any]) -> None:
    """Give it what moto leaves out."""
    if kind == "AWS::S3::Bucket":
        resource.set_lifecycle([_rule(each) for each in properties.get("LifecycleConfiguration", {}).get("Rules", ())])
    if kind == "AWS::Logs::LogGroup":
        resource.retention_in_days = properties.get("RetentionInDays")


def _rule(given: Mapping[str, Any]) -> dict[str, Any]:
    """A lifecycle's rule as S3 has it."""
    rule = {"ID": given.get("Id"), "Status": given["Status"], "Filter": {"Prefix": given.get("Prefix", "")}}
    rule |= {key: given[key] for key in ("AbortIncompleteMultipartUpload",) if key in given}
    return rule | ({"Expiration": {"Days": given["ExpirationInDays"]}} if "ExpirationInDays" in given else {})


def _clean(value: Any, resources: Any) -> Any:
    """moto's ``clean_json``, without what is AWS::NoValue in lists."""
    if isinstance(value, list):
        return [cleaned for each in value if (cleaned := _clean(each, resources)) is not None]
    return _clean_one(value, resources)


def _delete_stack(backend: CloudFormationBackend, name: str) -> None:
    """moto's, but what could not be deleted is there."""
    _forget_stack(backend, name)
    for number, stack in list(backend.deleted_stacks.items()):
        if stack.status == "DELETE_FAILED":
            backend.stacks[number] = backend.deleted_stacks.pop(number)


_clean_one, _forget_stack = parsing.clean_json, CloudFormationBackend.delete_stack


def install() -> None:
    """Have moto use all of this, in this process."""
    models.Stack = _Stack  # type: ignore[misc]
    parsing.clean_json = _clean  # type: ignore[assignment]
    CloudFormationBackend.delete_stack = _delete_stack  # type: ignore[assignment,method-assign]
