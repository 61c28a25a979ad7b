"""Amazon S3, and what speaks its protocol: MinIO, Ceph, and services of other providers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from lithops_mini.storage.s3 import S3Storage
from lithops_mini.storage.s3_session import new_session


@dataclass(frozen=True)
class AwsOptions:
    """What the backends of AWS have in common: the section ``aws``."""

    region: str | None = field(
        default=None, metadata={"help": "Region, as in eu-central-1; null for the one AWS's own configuration names."}
    )
    endpoint_url: str | None = field(
        default=None, metadata={"help": "URL of a service that is not AWS's, as in http://localhost:9000."}
    )
    profile: str | None = field(default=None, metadata={"help": "Profile of AWS's own configuration (~/.aws) to use."})
    access_key_id: str | None = field(
        default=None,
        repr=False,
        metadata={"help": "Access key; null to look where AWS's tools look.", "secret": True},
    )
    secret_access_key: str | None = field(
        default=None, repr=False, metadata={"help": "The access key's secret.", "secret": True}
    )
    session_token: str | None = field(
        default=None, repr=False, metadata={"help": "Token of a temporary access key.", "secret": True}
    )

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together: give both or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token belongs to an access_key_id: give both or neither")


@dataclass(frozen=True)
class AwsS3Options(AwsOptions):
    """The settings of the ``aws_s3`` storage backend."""

    addressing_style: Literal["auto", "path", "virtual"] = field(
        default="auto",
        metadata={
            "help": "Where a URL has the bucket: the path, or the host name (virtual); auto: path with endpoint_url."
        },
    )
    ca_bundle: str | None = field(
        default=None, metadata={"help": "File of the certificates to trust, for an endpoint_url with one of its own."}
    )


class AwsS3Storage(S3Storage):
    """Buckets of Amazon S3, or of the service at ``endpoint_url``.

    Credentials are those of the options, else what AWS's SDK finds: environment, ``~/.aws``, the role of the machine.
    """

    Options: ClassVar[type[Any]] = AwsS3Options
    shared_sections: ClassVar[Mapping[str, type[Any]]] = {"aws": AwsOptions}
    name = "aws_s3"
    worker_packages = ("botocore",)
    sdk = "botocore"
    extra = "aws"
    credentials_hint = "run 'aws configure', or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or aws.profile"
    permissions: ClassVar[Mapping[str, str]] = {
        "store": "s3:PutObject",
        "read": "s3:GetObject",
        "describe": "s3:GetObject",
        "list": "s3:ListBucket",
        "open": "s3:ListBucket",
        "delete": "s3:DeleteObject",
        "create": "s3:CreateBucket",
    }

    def _connect(self) -> Any:
        options: AwsS3Options = self._options
        style = options.addressing_style
        if style == "auto" and options.endpoint_url:
            style = "path"  # few who run a server of their own have given it a host name for each bucket
        config = self._config(
            signature_version="s3v4",
            s3={"addressing_style": style},
            # AWS keeps a checksum with each object; other services may refuse the way it is sent. What they send back
            # is checked in any case.
            request_checksum_calculation="when_required" if options.endpoint_url else "when_supported",
            response_checksum_validation="when_supported",
        )
        # Who is given keys needs no profile, nor does a function of AWS Lambda, which has a role; both may be where
        # there is none.
        given = options.access_key_id or "AWS_LAMBDA_FUNCTION_NAME" in os.environ
        session = new_session(self.sdk, None if given else options.profile)
        return session.create_client(
            "s3",
            region_name=options.region or session.get_config_variable("region") or "us-east-1",
            endpoint_url=options.endpoint_url,
            verify=options.ca_bundle,
            aws_access_key_id=options.access_key_id,
            aws_secret_access_key=options.secret_access_key,
            aws_session_token=options.session_token,
            config=config,
        )

    def worker_options(self) -> dict[str, Any]:
        return super().worker_options() | {"region": self._client().meta.region_name}

    def _credentials(self) -> dict[str, str | None]:
        found = new_session(self.sdk, self._options.profile).get_credentials()
        if found is None:
            return {}
        access_key_id, secret_access_key, session_token, *_ = found.get_frozen_credentials()
        return {
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key,
            "session_token": session_token,
        }

    def _given_endpoint(self) -> str | None:
        endpoint: str | None = self._options.endpoint_url
        return endpoint

    def _location(self, region: str) -> dict[str, Any]:
        # The first region is the one that has no name here.
        return {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
