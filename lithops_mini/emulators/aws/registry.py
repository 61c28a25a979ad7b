"""The account's registry of images, as Docker engines push to it and pull from it: the HTTP API V2, on loopback.

Repositories and the manifests in them are moto's; layers lie in a directory.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import socket
import tempfile
import threading
import uuid
from base64 import b64decode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from moto.ecr.models import Image, Repository, ecr_backends

from lithops_mini.emulators.aws import manifests
from lithops_mini.emulators.aws.account import ACCOUNT
from lithops_mini.emulators.aws.manifests import Wrong
from lithops_mini.emulators.aws.signatures import Refused

USER = "AWS"
"""Whose password a token is."""

LAMBDA = object()
"""The principal that is Lambda itself."""

Permit = Callable[[Any, str, Repository], None]
"""Called with a principal, an action and a repository. ``Refused`` if it is not permitted."""

_PIECE = 1 << 20  # bytes
_TLS = 0x16  # how a handshake begins: engines try that first
_MANIFESTS = re.compile(r"/v2/([^/]+)/(.+)/manifests/([^/]+)")
_BLOBS = re.compile(r"/v2/([^/]+)/(.+)/blobs/sha256:([0-9a-f]{64})")
_UPLOADS = re.compile(r"/v2/([^/]+)/(.+)/blobs/uploads/([0-9a-f-]*)")


class Registry:
    """Listens on a port of loopback from now on until ``close``, which removes all layers."""

    def __init__(self, permit: Permit) -> None:
        self.permit = permit
        self.lock = threading.Lock()  # of moto's records
        self._principals: dict[str, Any] = {}  # by their tokens
        self._directory = Path(tempfile.mkdtemp(prefix="lithops-mini-registry-"))
        self._server = _Server(self)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, name="registry", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self._directory)

    def token(self, principal: Any) -> str:
        """A new password that is good for all that the principal may do."""
        token = secrets.token_hex(16)
        self._principals[token] = principal
        return token

    def principal(self, token: str) -> Any:
        """Who has the token. ``KeyError``: nobody."""
        return self._principals[token]

    def find(self, uri: str) -> tuple[Repository, Image | None] | None:
        """The repository and the image that ``uri`` names. ``None`` if it is another registry's, or no repository's."""
        address, _, path = uri.partition("/")
        if address != self.address:
            return None
        name, _, digest = path.partition("@")
        name, _, tag = name.partition(":")
        region, _, name = name.partition("/")
        repository = self.repository(region, name)
        return None if repository is None else (repository, manifests.find(repository, digest or tag or "latest"))

    def repository(self, region: str, name: str) -> Repository | None:
        return ecr_backends[ACCOUNT][region].repositories.get(name) if region in ecr_backends[ACCOUNT] else None

    def blob(self, digest: str) -> Path:
        """Where a layer lies, or would."""
        return self._directory / digest.removeprefix("sha256:")

    def upload(self, number: str) -> Path:
        """Where an upload lies until it is complete."""
        return self._directory / f"upload-{number}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        super().__init__(("127.0.0.1", 0), _Conversation)

    def handle_error(self, request: Any, client_address: Any) -> None:
        import sys

        if not isinstance(sys.exception(), ConnectionError):  # an engine that stops goes without a word
            super().handle_error(request, client_address)


class _Conversation(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def handle(self) -> None:
        first = self.connection.recv(1, socket.MSG_PEEK)
        if first and first[0] != _TLS:
            super().handle()

    def do_GET(self) -> None:
        self._do()

    def do_HEAD(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def do_PATCH(self) -> None:
        self._do()

    def do_PUT(self) -> None:
        self._do()

    def do_DELETE(self) -> None:
        self._do()

    def _do(self) -> None:
        self.registry = self.server.registry
        self.url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(self.url.query).items()}
        try:
            self.principal = self._authenticate()
        except KeyError:
            self._skip()
            challenge = {"WWW-Authenticate": f'Basic realm="http://{self.registry.address}/",service="ecr"'}
            self._refuse(401, "UNAUTHORIZED", "Not Authorized", challenge)
            return
        try:
            self._route()
        except Refused as error:
            self._skip()
            self._refuse(403, "DENIED", str(error.args[1]))
        except Wrong as error:
            self._skip()
            self._refuse(*error.args)

    def _authenticate(self) -> Any:
        kind, _, said = self.headers.get("Authorization", "").partition(" ")
        try:
            user, _, token = b64decode(said).decode().partition(":")
        except ValueError as error:
            raise KeyError(said) from error
        if (kind.lower(), user) != ("basic", USER):
            raise KeyError(user)
        return self.registry.principal(token)

    def _route(self) -> None:
        if self.url.path in ("/v2", "/v2/"):
            self._answer(200, b"{}")
        elif match := _UPLOADS.fullmatch(self.url.path):
            self._upload(self._repository(match), match[3])
        elif match := _BLOBS.fullmatch(self.url.path):
            self._blob(self._repository(match), f"sha256:{match[3]}")
        elif match := _MANIFESTS.fullmatch(self.url.path):
            self._manifest(self._repository(match), match[3])
        else:
            raise Wrong(404, "UNSUPPORTED", f"there is no {self.url.path}")

    def _repository(self, match: re.Match[str]) -> Repository:
        found = self.registry.repository(match[1], match[2])
        if found is None:
            text = f"The repository with name '{match[2]}' does not exist in the registry with id '{ACCOUNT}'"
            raise Wrong(404, "NAME_UNKNOWN", text)
        return found

    def _need(self, action: str, repository: Repository) -> None:
        self.registry.permit(self.principal, f"ecr:{action}", repository)

    # -- layers

    def _blob(self, repository: Repository, digest: str) -> None:
        if self.command not in ("GET", "HEAD"):
            raise Wrong(405, "UNSUPPORTED", "layers are only read")
        self._need("BatchCheckLayerAvailability" if self.command == "HEAD" else "GetDownloadUrlForLayer", repository)
        if digest not in repository.layers:
            raise Wrong(404, "BLOB_UNKNOWN", f"there is no layer {digest} in {repository.name}")
        path = self.registry.blob(digest)
        size = path.stat().st_size
        self._begin(200, {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}, size)
        if self.command == "GET":
            with open(path, "rb") as file:
                shutil.copyfileobj(file, self.wfile, _PIECE)

    def _upload(self, repository: Repository, number: str) -> None:
        if self.command == "POST" and not number:  # a layer that another repository has is sent again
            self._need("InitiateLayerUpload", repository)
            self._skip()
            number = str(uuid.uuid4())
            self.registry.upload(number).touch()
            self._go_on(repository, number)
            return
        path = self.registry.upload(number)
        if not number or not path.exists():
            raise Wrong(404, "BLOB_UPLOAD_UNKNOWN", f"there is no upload {number}")
        if self.command == "PATCH":
            self._need("UploadLayerPart", repository)
            self._append(path)
            self._go_on(repository, number)
        elif self.command == "PUT":
            self._need("CompleteLayerUpload", repository)
            self._append(path)
            self._complete(repository, path)
        elif self.command == "DELETE":
            path.unlink()
            self._answer(204)
        else:
            raise Wrong(405, "UNSUPPORTED", "uploads are only written")

    def _go_on(self, repository: Repository, number: str) -> None:
        size = self.registry.upload(number).stat().st_size
        place = f"/v2/{repository.region_name}/{repository.name}/blobs/uploads/{number}"
        more = {"Location": place, "Docker-Upload-UUID": number, "Range": f"0-{max(size - 1, 0)}"}
        self._answer(202, headers=more)

    def _append(self, path: Path) -> None:
        with open(path, "ab") as file:
            for piece in self._body():
                file.write(piece)

    def _complete(self, repository: Repository, path: Path) -> None:
        with open(path, "rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if self.query.get("digest") != digest:
            raise Wrong(400, "DIGEST_INVALID", f"the layer is {digest}, and not {self.query.get('digest')}")
        repository.layers[digest] = path.stat().st_size
        path.replace(self.registry.blob(digest))
        place = f"/v2/{repository.region_name}/{repository.name}/blobs/{digest}"
        self._answer(201, headers={"Location": place, "Docker-Content-Digest": digest})

    # -- manifests

    def _manifest(self, repository: Repository, reference: str) -> None:
        if self.command == "PUT":
            self._need("PutImage", repository)
            data = b"".join(self._body())
            with self.registry.lock:
                digest = manifests.put(repository, reference, data, self.headers.get("Content-Type", ""))
            place = f"/v2/{repository.region_name}/{repository.name}/manifests/{digest}"
            self._answer(201, headers={"Location": place, "Docker-Content-Digest": digest})
            return
        if self.command not in ("GET", "HEAD"):
            raise Wrong(405, "UNSUPPORTED", "images are deleted by BatchDeleteImage")
        self._need("BatchGetImage", repository)
        found = manifests.find(repository, reference)
        if found is None:
            raise Wrong(404, "MANIFEST_UNKNOWN", "Requested image not found")
        headers = {
            "Content-Type": str(found.image_manifest_media_type),
            "Docker-Content-Digest": found.get_image_digest(),
        }
        self._answer(200, found.image_manifest.encode(), headers)

    # -- HTTP

    def _body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            while size := int(self._line().split(b";")[0], 16):
                yield from self._read(size)
                self._line()
            while self._line().strip():  # trailers
                pass
        else:
            yield from self._read(int(self.headers.get("Content-Length") or 0))
        self.headers["X-Read"] = "yes"

    def _line(self) -> bytes:
        line = self.rfile.readline()
        if not line:
            raise ConnectionResetError("the engine has gone")
        return line

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(size, _PIECE))
            if not piece:
                raise ConnectionResetError("the engine has gone")
            size -= len(piece)
            yield piece

    def _skip(self) -> None:
        """Read what nobody wants of the request, unless it was read."""
        if "X-Read" not in self.headers:
            for _ in self._body():
                pass

    def _refuse(self, status: int, code: str, text: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"errors": [{"code": code, "message": text}]}).encode()
        self._answer(status, body, {"Content-Type": "application/json", **(headers or {})})

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self._begin(status, headers or {}, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, headers: dict[str, str], size: int) -> None:
        self.send_response_only(status)
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base's name for it
        pass
