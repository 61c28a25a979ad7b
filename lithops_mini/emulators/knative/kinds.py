"""The kinds of objects that the API server has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""An object as it is in JSON. One that a store has given must not be changed."""

SERVING = "serving.knative.dev"
RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True)
class Kind:
    """A kind, and where it is found."""

    group: str  # empty: the core
    version: str
    plural: str
    name: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    namespaced: bool = True
    subresources: tuple[str, ...] = ()
    custom: bool = False  # by a CustomResourceDefinition

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """``services.serving.knative.dev``, ``secrets``."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def full_name(self) -> str:
        """``Service.serving.knative.dev``, ``Secret``."""
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def singular(self) -> str:
        return self.name.lower()


def _serving(plural: str, name: str, *short_names: str) -> Kind:
    categories = ("all", "knative", "serving")
    return Kind(SERVING, "v1", plural, name, short_names, categories, subresources=("status",), custom=True)


NAMESPACE = Kind("", "v1", "namespaces", "Namespace", ("ns",), namespaced=False)
SECRET = Kind("", "v1", "secrets", "Secret")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount", ("sa",), subresources=("token",))
POD = Kind("", "v1", "pods", "Pod", ("po",), ("all",), subresources=("log", "status"))
EVENT = Kind("", "v1", "events", "Event", ("ev",))
ROLE = Kind(RBAC, "v1", "roles", "Role")
ROLE_BINDING = Kind(RBAC, "v1", "rolebindings", "RoleBinding")
SERVICE = _serving("services", "Service", "kservice", "ksvc")
CONFIGURATION = _serving("configurations", "Configuration", "config", "cfg")
REVISION = _serving("revisions", "Revision", "rev")
ROUTE = _serving("routes", "Route", "rt")

KINDS = (
    NAMESPACE,
    SECRET,
    SERVICE_ACCOUNT,
    POD,
    EVENT,
    ROLE,
    ROLE_BINDING,
    SERVICE,
    CONFIGURATION,
    REVISION,
    ROUTE,
)
BY_PLACE = {(each.group, each.version, each.plural): each for each in KINDS}
