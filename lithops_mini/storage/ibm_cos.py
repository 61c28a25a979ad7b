"""IBM Cloud Object Storage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lithops_mini.storage.s3 import S3Storage
from lithops_mini.storage.s3_session import new_session

# Set where IBM's own platforms, and OpenWhisk, run a worker: there the private network is at hand.
_IN_THE_CLOUD = ("CE_REGION", "__OW_API_HOST")


@dataclass(frozen=True)
class IbmOptions:
    """What the backends of IBM Cloud have in common: the section ``ibm``."""

    iam_api_key: str | None = field(
        default=None,
        repr=False,
        metadata={"help": "API key of IBM Cloud's IAM; null to look where IBM's SDK looks.", "secret": True},
    )
    region: str | None = field(
        default=None, metadata={"help": "Region, as in eu-de; needed where no endpoint is given."}
    )


@dataclass(frozen=True)
class IbmCosOptions(IbmOptions):
    """The settings of the ``ibm_cos`` storage backend."""

    endpoint: str | None = field(
        default=None, metadata={"help": "URL of the service; null for the one of the region and the network."}
    )
    private_endpoint: str | None = field(
        default=None, metadata={"help": "URL for workers that run in IBM Cloud; null for the same as elsewhere."}
    )
    network: Literal["public", "private", "direct"] = field(
        default="public", metadata={"help": "Which of the region's endpoints; public is the one reached from anywhere."}
    )
    access_key_id: str | None = field(
        default=None, repr=False, metadata={"help": "Access key of an HMAC credential.", "secret": True}
    )
    secret_access_key: str | None = field(
        default=None, repr=False, metadata={"help": "The access key's secret.", "secret": True}
    )
    service_instance_id: str | None = field(
        default=None, metadata={"help": "CRN of the storage instance; with an API key, buckets are made in it."}
    )
    iam_endpoint: str | None = field(
        default=None, metadata={"help": "URL that gives tokens for API keys; null for IBM's public one."}
    )
    ca_bundle: str | None = field(
        default=None, metadata={"help": "File of the certificates to trust, for an endpoint with one of its own."}
    )

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together: give both or neither")
        if self.access_key_id is not None and self.iam_api_key is not None:
            raise ValueError("access_key_id and ibm.iam_api_key are two ways to say who you are: give one")
        if self.region is None and self.endpoint is None:
            raise ValueError("region (in the section ibm) or endpoint is missing: say where the buckets are")


class IbmCosStorage(S3Storage):
    """Buckets of an instance of IBM Cloud Object Storage.

    Credentials are an HMAC key or an API key of the options, else what IBM's SDK finds. For an API key the SDK fetches
    a token of IAM, keeps it, and renews it in good time.
    """

    Options: ClassVar[type[Any]] = IbmCosOptions
    shared_sections: ClassVar[Mapping[str, type[Any]]] = {"ibm": IbmOptions}
    name = "ibm_cos"
    worker_packages = ("ibm-cos-sdk-core",)
    sdk = "ibm_botocore"
    extra = "ibm"
    credentials_hint = (
        "set ibm.iam_api_key, or ibm_cos.access_key_id and secret_access_key, or put ~/.bluemix/cos_credentials there"
    )
    permissions: ClassVar[Mapping[str, str]] = {
        "store": "the role Writer, or Object Writer",
        "read": "the role Content Reader, or Object Reader",
        "describe": "the role Content Reader, or Object Reader",
        "list": "the role Content Reader",
        "open": "the role Content Reader",
        "delete": "the role Writer",
        "create": "the role Writer on the storage instance",
    }

    def _connect(self) -> Any:
        options: IbmCosOptions = self._options
        session = new_session(self.sdk)
        client = session.create_client(
            "s3",
            region_name=options.region or "us-east-1",
            endpoint_url=self._endpoint(),
            verify=options.ca_bundle,
            aws_access_key_id=options.access_key_id,
            aws_secret_access_key=options.secret_access_key,
            ibm_api_key_id=options.iam_api_key,
            ibm_service_instance_id=options.service_instance_id,
            ibm_auth_endpoint=options.iam_endpoint,
            config=self._config(
                signature_version=self._signature(session),
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_supported",
            ),
        )
        client.meta.events.register("before-parameter-build.s3.*", _take_condition)
        client.meta.events.register("before-call.s3.*", _send_condition)
        return client

    def _endpoint(self) -> str:
        options: IbmCosOptions = self._options
        if options.private_endpoint and any(name in os.environ for name in _IN_THE_CLOUD):
            return options.private_endpoint
        network = "" if options.network == "public" else f"{options.network}."
        return options.endpoint or f"https://s3.{network}{options.region}.cloud-object-storage.appdomain.cloud"

    def _given_endpoint(self) -> str | None:
        endpoint: str | None = self._options.endpoint
        return endpoint

    def _credentials(self) -> dict[str, str | None]:
        found = new_session(self.sdk).get_credentials()
        if found is None:
            return {}
        if hasattr(found, "token_manager"):
            return {"iam_api_key": found.api_key_id}
        access_key_id, secret_access_key, *_ = found.get_frozen_credentials()
        return {"access_key_id": access_key_id, "secret_access_key": secret_access_key}

    def _signature(self, session: Any) -> str:
        options: IbmCosOptions = self._options
        if options.iam_api_key is not None:
            return "oauth"
        found = None if options.access_key_id is not None else session.get_credentials()
        return "oauth" if found is not None and hasattr(found, "token_manager") else "s3v4"


# The SDK's model of the service knows no If-None-Match; the service does.


def _take_condition(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    if (condition := params.pop("IfNoneMatch", None)) is not None:
        context["lithops_mini_condition"] = condition


def _send_condition(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
    if "lithops_mini_condition" in context:
        params["headers"]["If-None-Match"] = context["lithops_mini_condition"]
