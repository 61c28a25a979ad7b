"""A local Knative and an S3 beside it, for tests of the knative backend."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from engines import Engine

from lithops_mini.runtimes.cluster import Cluster

BUCKET = "lithops-mini-jobs"


class Local:
    """A running emulator of a cluster, and what executors on it take."""

    def __init__(self, profile: Path, storage: Engine) -> None:
        self.profile = profile
        found = yaml.safe_load(profile.read_text())
        self.settings: dict[str, Any] = found["profiles"]["emulator"]["knative"]
        del self.settings["shared_files"]  # as in a cluster
        self.ingress: str = self.settings["ingress"]
        self._storage = storage

    def executor(self, **more: Any) -> dict[str, Any]:
        """Arguments of ``function_executor``: workers are processes, whatever image they are said to have."""
        storage = {
            "endpoint_url": self._storage.url,
            "region": self._storage.region,
            "access_key_id": self._storage.access_key_id,
            "secret_access_key": self._storage.secret_access_key,
        }
        place = {"backend": "knative", "storage": "aws_s3", "storage_bucket": BUCKET, "progress": False}
        return {**place, **self.settings, **storage, "image": "example.com/any:image", "max_workers": 4, **more}

    def cluster(self) -> Cluster:
        return Cluster(self.settings["kubeconfig"], namespace=self.settings.get("namespace"))

    def own(self, name: str, method: str = "GET", **values: Any) -> Any:
        """What the emulator says of itself."""
        body = json.dumps(values).encode() if values else None
        request = urllib.request.Request(f"{self.ingress}/_emulator/{name}", body, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def start_knative(directory: Path, storage: Engine, *flags: str) -> Iterator[Local]:
    """A cluster with these flags, whose pods are processes if none says otherwise; ended with SIGTERM."""
    profile = directory / "knative.yaml"
    kind = () if "--sandbox" in flags else ("--sandbox", "process")
    command = [sys.executable, "-m", "lithops_mini", "emulate", "knative", "--profile-file", str(profile), *kind]
    with open(directory / "knative.log", "w+") as errors:
        process = subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            assert " answers at " in first, Path(errors.name).read_text()
            yield Local(profile, storage)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.stdout.read()
            process.stdout.close()
            process.wait(60)
        assert process.returncode == 0
        assert "Traceback" not in Path(errors.name).read_text(), Path(errors.name).read_text()
