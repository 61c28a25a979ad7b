"""IBM Cloud Functions: OpenWhisk, with a token of IBM's IAM and the id of a namespace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from lithops_mini.compute.openwhisk import OpenWhiskCompute
from lithops_mini.compute.openwhisk_options import ActionOptions, safe_url, trusted
from lithops_mini.errors import ConfigError
from lithops_mini.runtimes.iam import IamToken
from lithops_mini.runtimes.openwhisk_service import Service
from lithops_mini.storage.ibm_cos import IbmOptions


@dataclass(frozen=True)
class IbmCfPlace(IbmOptions):
    """Where the service is, and who one is there."""

    namespace_id: str | None = field(default=None, metadata={"help": "Id of the namespace of the actions."})
    endpoint: str | None = field(
        default=None,
        metadata={"help": "URL of the service; null for that of the region.", "pattern": "^https?://[^/]"},
    )
    iam_endpoint: str | None = field(
        default=None,
        metadata={
            "help": "URL that gives tokens for API keys; null for IBM's public one.",
            "pattern": "^https?://[^/]",
        },
    )


@dataclass(frozen=True)
class IbmCfOptions(ActionOptions, IbmCfPlace):
    """Settings of the ibm_cf compute backend."""


class IbmCfCompute(OpenWhiskCompute):
    """Actions of a namespace of IBM Cloud Functions, or of an OpenWhisk that takes tokens of an IAM."""

    Options: ClassVar[type[Any]] = IbmCfOptions
    shared_sections: ClassVar[Mapping[str, type[Any]]] = {"ibm": IbmOptions}
    name: ClassVar[str] = "ibm_cf"
    place: ClassVar[str] = "ibm_cf.namespace_id"

    def _reach(self) -> Service:
        options = self._options
        assert isinstance(options, IbmCfOptions)
        if options.iam_api_key is None:
            raise ConfigError("ibm.iam_api_key is not set, and ibm_cf has no other credentials")
        if options.namespace_id is None:
            raise ConfigError("ibm_cf.namespace_id is not set: ibmcloud fn namespace list shows those of an account")
        if options.endpoint is None and options.region is None:
            raise ConfigError("ibm.region and ibm_cf.endpoint are not set: one of them says where the service is")
        endpoint = options.endpoint or f"https://{options.region}.functions.cloud.ibm.com"
        setting = "ibm_cf.iam_endpoint"
        if options.iam_endpoint is not None:
            safe_url(options.iam_endpoint, setting, insecure=options.insecure)
        self._token = IamToken(
            options.iam_api_key,
            options.iam_endpoint,
            setting=setting,
            key="ibm.iam_api_key",
            verify=trusted(options, self.name),
        )
        return self._service_at(endpoint, options.namespace_id, self._token, "ibm.iam_api_key")

    def close(self) -> None:
        super().close()
        self._token.end()
