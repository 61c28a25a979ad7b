"""The file that leads clients of Kubernetes to the emulator."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import yaml

_NAME = "lithops-mini-emulator"


def write(path: Path, url: str, certificate: bytes, token: str) -> None:
    """Write it for its owner alone; who reads it meanwhile finds the old one or the new one, whole."""
    cluster = {"server": url, "certificate-authority-data": base64.b64encode(certificate).decode()}
    context = {"cluster": _NAME, "user": _NAME, "namespace": "default"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": _NAME, "cluster": cluster}],
        "users": [{"name": _NAME, "user": {"token": token}}],
        "contexts": [{"name": _NAME, "context": context}],
        "current-context": _NAME,
    }
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(beside, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        yaml.safe_dump(document, file, sort_keys=False)
    beside.replace(path)
