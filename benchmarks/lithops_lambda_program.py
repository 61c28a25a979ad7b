"""Calls with Lithops in functions of AWS Lambda, by the interpreter that it is installed for: `lithops_peer` starts it.

AWS is where AWS_ENDPOINT_URL leads. Each line it reads is a number of calls; it answers with the seconds until the last
was sent and until the last result was there, and ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import boto3
import lithops
from lithops.serverless.backends.aws_lambda import aws_lambda


def nothing(x: int) -> None:
    pass


class Redirected(aws_lambda.URLLib3Session):
    """Lithops spells the address of AWS Lambda itself to invoke a function: its signed requests go to the emulator."""

    def send(self, request: Any) -> Any:
        emulator, meant = urlsplit(os.environ["AWS_ENDPOINT_URL"]), urlsplit(request.url)
        request.url = meant._replace(scheme=emulator.scheme, netloc=emulator.netloc).geturl()
        return super().send(request)


def publish(backend: aws_lambda.AWSLambdaBackend, layer: str) -> None:
    """What Lithops needs in its functions, which it has a function of its own fetch: here that was done before."""
    name = backend._format_layer_name(backend._get_default_runtime_name())
    with open(layer, "rb") as file:
        boto3.client("lambda").publish_layer_version(LayerName=name, Content={"ZipFile": file.read()})


def take(executor: lithops.FunctionExecutor, calls: int, interval: float) -> tuple[float, float]:
    """The seconds until the last call was sent, and until the last result was there."""
    started, clock = time.perf_counter(), time.time()
    futures = [executor.call_async(nothing, 1)] if calls == 1 else executor.map(nothing, range(calls))
    executor.get_result(futures, wait_dur_sec=interval)
    took = time.perf_counter() - started
    return max(future.stats["host_submit_tstamp"] for future in futures) - clock, took


def main(role: str, memory: int, bucket: str, workers: int, interval: float, layer: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Lithops prints too
    aws_lambda.URLLib3Session = Redirected
    keys = {
        "region": os.environ["AWS_DEFAULT_REGION"],
        "access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
    }
    config = {
        "lithops": {
            "backend": "aws_lambda",
            "storage": "aws_s3",
            "log_level": "ERROR",
            "monitoring_interval": interval,
        },
        "aws": keys,
        "aws_lambda": {"execution_role": role, "max_workers": workers, "runtime_memory": memory},
        "aws_s3": {"storage_bucket": bucket},
    }
    with lithops.FunctionExecutor(config=config) as executor:
        backend = executor.compute_handler.backend
        if not backend._list_layers():
            publish(backend, layer)
        for line in sys.stdin:
            print(json.dumps(take(executor, int(line), interval)), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), sys.argv[6])
