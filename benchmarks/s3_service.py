"""The S3 service of the benchmarks, which is an engine of the tests, and the ways into it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from engines import Engine, start_swift

__all__ = ["BUCKET", "Engine", "config", "sdk_client", "start_swift"]

BUCKET = "benchmark"


def config(storage: str, engine: Engine) -> dict[str, Any]:
    """The configuration of ``aws_s3`` or ``ibm_cos`` storage on the engine."""
    keys = {"access_key_id": engine.access_key_id, "secret_access_key": engine.secret_access_key}
    sections = {
        "aws_s3": {"aws": {"endpoint_url": engine.url, "region": engine.region, **keys}},
        "ibm_cos": {"ibm": {"region": engine.region}, "ibm_cos": {"endpoint": engine.url, **keys}},
    }
    return {"storage": storage, "storage_bucket": BUCKET, **sections[storage]}


def sdk_client(engine: Engine, boto3: str = "boto3", botocore: str = "botocore") -> Any:
    """With the SDK's defaults, but for how the service is addressed and the checksums, which are as in ours."""
    settings = importlib.import_module(f"{botocore}.config").Config(
        signature_version="s3v4", s3={"addressing_style": "path"}, request_checksum_calculation="when_required"
    )
    return importlib.import_module(boto3).client(
        "s3",
        endpoint_url=engine.url,
        region_name=engine.region,
        aws_access_key_id=engine.access_key_id,
        aws_secret_access_key=engine.secret_access_key,
        config=settings,
    )
