"""Rules of EventBridge whose targets are functions: what is put on a bus comes to them, as moto leaves it out."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from moto.events.models import Rule
from moto.events.utils import EventTemplateParser

from lithops_mini.emulators.aws.events import Event

_send = Rule.send_to_targets


def install(put: Callable[[Event], None]) -> None:
    """Have moto hand to ``put`` what comes to functions, in this process."""

    def send_to_targets(rule: Rule, event: Any, transform_input: bool = True) -> None:
        # One without a pattern has a schedule only, and matches nothing that is put.
        if rule.state != "ENABLED" or not rule.event_pattern.get_pattern():
            return
        functions = [target for target in rule.targets if target["Arn"].split(":")[2] == "lambda"]
        if functions and rule.event_pattern.matches_event(event):
            for target in functions:
                region, _, _, name, *qualifier = target["Arn"].split(":")[3:]
                put(Event(region, name, qualifier[0] if qualifier else None, _payload(target, event)))
        if others := [target for target in rule.targets if target not in functions]:
            rest = copy.copy(rule)
            rest.targets = others
            _send(rest, event, transform_input)

    Rule.send_to_targets = send_to_targets  # type: ignore[assignment,method-assign]


def _payload(target: Mapping[str, Any], event: Mapping[str, Any]) -> bytes:
    if "Input" in target:
        return str(target["Input"]).encode()
    value: Any = {key: each for key, each in event.items() if key not in ("ingestion-time", "replay-name")}
    value["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(float(event["time"])))
    if transformer := target.get("InputTransformer"):
        paths, template = transformer.get("InputPathsMap", {}), transformer["InputTemplate"]
        value = EventTemplateParser.parse(input_template=template, input_paths_map=paths, event=value)
    for name in target.get("InputPath", "$").split(".")[1:]:
        value = value[name]
    return json.dumps(value).encode()
