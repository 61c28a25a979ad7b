"""Changes of objects as clients send them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from jsonpatch import JsonPatch, JsonPatchException
from jsonpointer import JsonPointerException

from lithops_mini.emulators.knative.kinds import Kind, Object
from lithops_mini.emulators.knative.status import Refused, bad_request, unsupported

JSON = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"

_KEYS = {"finalizers": "", "ownerReferences": "uid", "imagePullSecrets": "name", "secrets": "name"}


def patched(kind: Kind, found: Object, patch: Any, content_type: str) -> Object:
    """A copy of an object with a patch applied. ``Refused`` for one that cannot be."""
    found = copy.deepcopy(found)
    known = (JSON, MERGE) if kind.custom else (JSON, MERGE, STRATEGIC)
    if content_type not in known:
        raise unsupported(content_type, known)
    if content_type == JSON:
        return _json_patched(found, patch)
    if not isinstance(patch, dict):
        raise bad_request("the patch must be an object")
    made: Object = merged(found, patch, _KEYS if content_type == STRATEGIC else {})
    return made


def merged(found: Any, patch: Any, keys: Mapping[str, str]) -> Any:
    """RFC 7386; of lists named in ``keys`` the items with the same value of that field are merged, others added."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(found) if isinstance(found, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        elif name in keys and isinstance(value, list):
            made[name] = _merged_lists(made.get(name) or [], value, keys[name])
        else:
            made[name] = merged(made.get(name), value, keys)
    return made


def _merged_lists(found: list[Any], patch: list[Any], key: str) -> list[Any]:
    if not key:
        return found + [each for each in patch if each not in found]
    made = {each.get(key): each for each in found}
    for each in patch:
        if each.get("$patch") == "delete":
            made.pop(each.get(key), None)
        else:
            made[each.get(key)] = merged(made.get(each.get(key)), each, {})
    return list(made.values())


def _json_patched(found: Object, patch: Any) -> Object:
    if not isinstance(patch, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    try:
        made: Object = JsonPatch(patch).apply(found)
    except (JsonPatchException, JsonPointerException) as error:
        text = f"the server rejected our request due to an error in our request: {error}"
        raise Refused(422, "Invalid", text, {}) from error
    return made
