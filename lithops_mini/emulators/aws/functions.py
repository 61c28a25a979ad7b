"""What a Lambda function is, as its configuration says it at this moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.awslambda.exceptions import UnknownFunctionException
from moto.awslambda.models import LambdaFunction, lambda_backends

from lithops_mini.emulators.aws.account import ACCOUNT


@dataclass(frozen=True)
class Function:
    """Everything that decides what a sandbox of a function is: another configuration, or other code, is another one."""

    region: str
    name: str
    version: str
    arn: str
    runtime: str  # "python3.11"; empty for an image
    architecture: str
    handler: str
    role: str
    memory: int  # MB
    timeout: int  # seconds
    storage: int  # MB, of /tmp
    environment: tuple[tuple[str, str], ...]
    code: str  # digest of the zip; empty for an image
    image: str  # empty for a zip
    command: tuple[str, ...]  # of an image, instead of its own; and so the next two
    entry_point: tuple[str, ...]
    directory: str
    layers: tuple[str, ...]  # digests, in the order in which they are laid over each other
    log_group: str
    zip: bytes = field(compare=False, repr=False)
    layer_zips: tuple[bytes, ...] = field(compare=False, repr=False)

    @property
    def log_streams(self) -> str:
        """What the names of its log streams have after the date: its own name too, unless the group has that."""
        own = self.log_group == default_log_group(self.name)
        return f"{'' if own else self.name}[{self.version}]"


def default_log_group(name: str) -> str:
    """The group that a function's log goes to if its configuration names none."""
    return f"/aws/lambda/{name}"


def keep_logging() -> None:
    """Have moto's records of functions keep and tell their ``LoggingConfig``, of which moto knows nothing."""
    kind: Any = LambdaFunction
    begin, update, tell = kind.__init__, kind.update_configuration, kind.get_configuration

    def keep(record: LambdaFunction, given: Mapping[str, Any]) -> None:
        if "LoggingConfig" in given:
            record.logs_group_name = given["LoggingConfig"].get("LogGroup") or default_log_group(record.function_name)

    def begin_keeping(record: LambdaFunction, account_id: str, spec: dict[str, Any], *more: Any, **named: Any) -> None:
        begin(record, account_id, spec, *more, **named)
        keep(record, spec)

    def update_keeping(record: LambdaFunction, changes: dict[str, Any]) -> Any:
        keep(record, changes)
        return update(record, changes)

    def tell_all(record: LambdaFunction, *more: Any, **named: Any) -> dict[str, Any]:
        logging = {"LogFormat": "Text", "LogGroup": record.logs_group_name}
        return {**tell(record, *more, **named), "LoggingConfig": logging}

    kind.__init__, kind.update_configuration, kind.get_configuration = begin_keeping, update_keeping, tell_all


def find(region: str, name: str, qualifier: str | None) -> tuple[Function, LambdaFunction]:
    """A function by its name or ARN, and moto's record of it. moto's ``UnknownFunctionException`` if there is none."""
    backend = lambda_backends[ACCOUNT][region]
    record = backend.get_function(name, qualifier)
    layers = [backend.layers_versions_by_arn(layer["Arn"]) for layer in record.layers]
    image = record.image_config
    is_image = record.package_type == "Image"
    function = Function(
        region=region,
        name=record.function_name,
        version=str(record.version),
        arn=record.function_arn,
        runtime=record.run_time or "",
        architecture=record.architectures[0],
        handler=record.handler or "",
        role=record.role,
        memory=int(record.memory_size),
        timeout=int(record.timeout),
        storage=int(record.ephemeral_storage),
        environment=tuple(sorted(record.environment_vars.items())),
        code="" if is_image else record.code_sha_256,
        image=record.code["ImageUri"] if is_image else "",
        command=tuple(image.cmd),
        entry_point=tuple(image.entry_point),
        directory=image.working_directory or "",
        layers=tuple(layer.code_sha_256 for layer in layers if layer),
        log_group=record.logs_group_name,
        zip=b"" if is_image else record.code_bytes,
        layer_zips=tuple(layer.code_bytes for layer in layers if layer),
    )
    return function, record


def layers(region: str, arns: Iterable[str]) -> list[bytes]:
    """The zips of layers; those that do not exist are left out."""
    backend = lambda_backends[ACCOUNT][region]
    found = [backend.layers_versions_by_arn(arn) for arn in arns]
    return [layer.code_bytes for layer in found if layer]


def exists(function: Function) -> bool:
    """Whether the function is still there as it is described."""
    try:
        return find(function.region, function.name, function.version)[0] == function
    except UnknownFunctionException:
        return False


def reserved(region: str) -> dict[str, int]:
    """The functions of a region that have concurrency reserved, and how much."""
    functions = lambda_backends[ACCOUNT][region].list_functions()
    return {
        each.function_name: int(each.reserved_concurrency)
        for each in functions
        if each.reserved_concurrency is not None
    }


def deployed(region: str) -> tuple[int, int]:
    """How many functions a region has, and the bytes of their zips."""
    functions = list(lambda_backends[ACCOUNT][region].list_functions())
    return len(functions), sum(int(each.code_size) for each in functions)


def event_config(record: LambdaFunction) -> Mapping[str, Any]:
    """What is configured for asynchronous invocations of the function; empty if nothing is."""
    backend = lambda_backends[ACCOUNT][record.region]
    configs = backend.list_function_event_invoke_configs(record.function_name)["FunctionEventInvokeConfigs"]
    return configs[0] if configs else {}
