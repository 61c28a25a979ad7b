"""What the storage backends of the S3 family share: the calls of the protocol, through the client of an SDK.

A backend adds where the service is and where its credentials come from. The SDK is imported by ``prepare``, or when the
first request is made. It signs, keeps connections and repeats requests that failed for a reason that passes; the only
repetition here is going on with a body whose connection was lost.
"""

from __future__ import annotations

import importlib
import io
import os
import re
import threading
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from itertools import chain, islice
from typing import Any, BinaryIO, ClassVar

from lithops_mini.errors import ConfigError, InputError, NoSuchBucket, NoSuchObject, ObjectExists, StorageError
from lithops_mini.records import Requests
from lithops_mini.storage import s3_transfer
from lithops_mini.storage.base import MAX_METADATA, Body, HostPath, ObjectInfo, Progress, StorageBackend, WorkerNeeds
from lithops_mini.storage.s3_errors import Service, code_of, retried, translated

_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}", re.ASCII)
_NO_XML = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")  # a request to delete could not name it
_LONGEST_KEY = 1024  # bytes
_BATCH = 1000  # keys of one request to delete
_ATTEMPTS = 6  # of one request, by the SDK
_CONNECTIONS = 64
_BUFFER = 1 << 18  # bytes a stream reads at a time
_WHOLE = 3  # times a body that came damaged is read
_MARK = "lithops-mini-put"  # metadata by which a put knows its own object again; not shown
# Answers after which a request is to be sent again, and the SDK does not: what came is not what was sent, or another
# writer is at it.
_REPEATED = ("BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "ConditionalRequestConflict")
# Failures that the SDK repeats for half a minute, and that stay.
_LASTING = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER")


class S3Storage(StorageBackend):
    """Buckets and objects of an S3 service. Keys are what the service takes, without characters that XML lacks."""

    name: ClassVar[str]  # as a configuration calls it
    sdk: ClassVar[str]  # the package with the SDK's session, exceptions and configuration
    extra: ClassVar[str]  # the extra of ours that installs it
    permissions: ClassVar[Mapping[str, str]]  # what each action needs, for error messages
    credentials_hint: ClassVar[str]

    def __init__(self, options: Any) -> None:
        """``options``, an instance of ``Options``; those that are secret may come from ``worker_needs()``."""
        secrets = self._secret_names()
        if all(getattr(options, name) is None for name in secrets):
            lent = {name: value for name in secrets if (value := os.environ.get(self._variable(name)))}
            options = replace(options, **lent)
        self._options = options
        self._lock = threading.Lock()
        self._owner = 0  # the process that made the client: a forked child must not use its connections
        self._made: Any = None
        self._sent: Counter[str] = Counter()  # requests, by the fields of Requests
        self._counting = threading.Lock()
        self._failures: tuple[type[Exception], ...] = ()  # what the SDK raises
        self._service = Service("the service", "", self.credentials_hint, self.permissions)

    @abstractmethod
    def _connect(self) -> Any:
        """Return a new client of the SDK."""

    def worker_options(self) -> dict[str, Any]:
        secrets = self._secret_names()
        return {f.name: getattr(self._options, f.name) for f in fields(self._options) if f.name not in secrets}

    def worker_needs(self, bucket: str) -> WorkerNeeds:
        bundle = self._options.ca_bundle
        return WorkerNeeds(
            environment=self._variables({name: getattr(self._options, name) for name in self._secret_names()}),
            found=self._found,
            packages=self.worker_packages,
            paths=(HostPath(os.path.abspath(bundle)),) if bundle else (),
            endpoint=self._given_endpoint(),
        )

    def _found(self) -> dict[str, str]:
        return self._variables(self._credentials())

    def _variables(self, secrets: Mapping[str, str | None]) -> dict[str, str]:
        # Names of ours, not of the SDK's: those would also be found by a function that uses the SDK for itself.
        return {self._variable(name): value for name, value in secrets.items() if value is not None}

    @abstractmethod
    def _credentials(self) -> dict[str, str | None]:
        """What the SDK finds if the options have no credentials, under the options' names."""

    @abstractmethod
    def _given_endpoint(self) -> str | None:
        """The URL of the service, if a user has given one."""

    def _secret_names(self) -> list[str]:
        return [f.name for f in fields(self.Options) if f.metadata.get("secret")]

    def _variable(self, name: str) -> str:
        return f"LITHOPS_MINI_{self.name}_{name}".upper()

    # ---------------------------------------------------------------- objects

    def put(
        self,
        bucket: str,
        key: str,
        body: Body,
        *,
        if_absent: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        target = {"Bucket": check_bucket(bucket), "Key": check_key(key)}
        kept = _checked_metadata(metadata)
        pieces = s3_transfer.parts(body)
        first = next(pieces)
        large = len(first) == s3_transfer.PART
        if large and if_absent and self._holds(bucket, key):  # the service decides; this spares sending it in vain
            raise _exists(bucket, key)
        mark = os.urandom(8).hex() if large or if_absent else None
        with self._errors(f"store {key!r} in", bucket):
            client = self._client()
            store = partial(_put_in_parts, rest=pieces) if large else _put_at_once
            try:
                store(client, target, kept if mark is None else kept | {_MARK: mark}, if_absent, first)
            except client.exceptions.ClientError as error:
                taken = code_of(error) in ("PreconditionFailed", "412")
                if not taken and code_of(error) != "NoSuchUpload":
                    raise
                # The answer to a request may be lost when it has been obeyed: repeated, it meets its own object.
                if retried(error) and client.head_object(**target)["Metadata"].get(_MARK) == mark:
                    return
                if taken:
                    raise _exists(bucket, key) from error
                raise

    def _holds(self, bucket: str, key: str) -> bool:
        try:
            self.head(bucket, key)
        except NoSuchObject:
            return False
        return True

    def get(self, bucket: str, key: str, start: int = 0, stop: int | None = None) -> bytes:
        for _ in range(_WHOLE - 1):
            try:
                return self._get(bucket, key, start, stop)
            except s3_transfer.Damaged:
                continue
        return self._get(bucket, key, start, stop)

    def _get(self, bucket: str, key: str, start: int, stop: int | None) -> bytes:
        with self._download(bucket, key, start, stop, None) as stream:
            return stream.readall()

    def open(
        self, bucket: str, key: str, start: int = 0, stop: int | None = None, *, etag: str | None = None
    ) -> BinaryIO:
        return io.BufferedReader(self._download(bucket, key, start, stop, etag), _BUFFER)

    def download(self, bucket: str, key: str, file: BinaryIO, progress: Progress | None = None) -> None:
        first = self._download(bucket, key, 0, s3_transfer.PART, None)
        told = threading.Lock()

        def fetch(start: int, stream: s3_transfer.Download | None = None) -> None:
            with stream or self._download(bucket, key, start, start + s3_transfer.PART, first.etag) as opened:
                for block in opened.blocks():
                    s3_transfer.write_at(file, start, block)
                    start += len(block)
                    if progress is not None:
                        with told:
                            progress(len(block))

        rest = (partial(fetch, start) for start in range(s3_transfer.PART, first.size, s3_transfer.PART))
        s3_transfer.in_parallel(chain([partial(fetch, 0, first)], rest))

    def head(self, bucket: str, key: str) -> ObjectInfo:
        check_key(key)
        with self._errors(f"describe {key!r} in", bucket):
            client = self._client()
            try:
                answer = client.head_object(Bucket=check_bucket(bucket), Key=key)
            except client.exceptions.ClientError as error:
                # The answer to a HEAD has no body, so no reason: asking for the bucket gives one if it lies there.
                self.head_bucket(bucket)
                if code_of(error) in ("404", "NoSuchKey"):
                    raise _missing(bucket, key) from error
                raise
        shown = {name: value for name, value in answer["Metadata"].items() if name != _MARK}
        return _info(key, answer["ContentLength"], answer, shown)

    def list(self, bucket: str, prefix: str = "", *, after: str = "") -> Iterator[ObjectInfo]:
        check_bucket(bucket)
        if prefix and not _fits(prefix):  # no key begins so
            self.head_bucket(bucket)
            return
        if after and not _fits(after):
            raise InputError(f"after={after!r:.100} is not what a key can be")
        question: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix} | ({"StartAfter": after} if after else {})
        while True:
            page = self._page(f"list {prefix!r} in", **question)
            for found in page.get("Contents", ()):
                yield _info(found["Key"], found["Size"], found, {})
            if not page.get("IsTruncated"):
                return
            question["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, bucket: str, keys: Iterable[str]) -> None:
        if isinstance(keys, str):
            raise InputError(f"delete takes several keys, as in [{keys!r}], not one string")
        check_bucket(bucket)
        remaining = iter(keys)
        while batch := [{"Key": check_key(key)} for key in islice(remaining, _BATCH)]:
            with self._errors("delete in", bucket):
                answer = self._client().delete_objects(Bucket=bucket, Delete={"Objects": batch, "Quiet": True})
                if refused := [one for one in answer.get("Errors", ()) if one.get("Code") != "NoSuchKey"]:
                    raise self._not_deleted(bucket, refused, len(batch))

    def _not_deleted(self, bucket: str, refused: Any, count: int) -> Exception:
        first = refused[0]
        error = StorageError(first.get("Message") or first.get("Code", ""))
        error.response = {"Error": first}  # type: ignore[attr-defined]  # as the SDK tells of a request's failure
        what = f"delete {len(refused):,} of {count:,} objects in"
        return translated(error, what, f"bucket {bucket!r}, the first being {first.get('Key')!r}", self._service)

    def presigned_url(self, bucket: str, key: str, *, method: str = "get", expires: float = 3600) -> str:
        if method not in ("get", "put"):
            raise InputError(f"method {method!r} is not 'get' or 'put'")
        if not 1 <= expires <= 604_800:
            raise InputError(f"expires is {expires:g}: give 1 to 604,800 seconds (seven days)")
        target = {"Bucket": check_bucket(bucket), "Key": check_key(key)}
        with self._errors(f"sign a URL of {key!r} in", bucket):
            url: str = self._client().generate_presigned_url(f"{method}_object", target, int(expires))
        return url

    # ---------------------------------------------------------------- buckets

    def create_bucket(self, bucket: str) -> None:
        try:
            self.head_bucket(bucket)
        except NoSuchBucket:
            with self._errors("create", bucket):
                client = self._client()
                try:
                    client.create_bucket(Bucket=bucket, **self._location(client.meta.region_name))
                except client.exceptions.ClientError as error:
                    if code_of(error) != "BucketAlreadyOwnedByYou":  # made by somebody else in the meantime
                        raise

    def _location(self, region: str) -> dict[str, Any]:
        """The parameters that say where a new bucket is to be."""
        return {}

    def head_bucket(self, bucket: str) -> None:
        check_bucket(bucket)
        # It needs the same permission as HEAD, whose answer could not say what is wrong.
        self._page("open", Bucket=bucket, MaxKeys=1)

    def _page(self, action: str, **question: Any) -> Any:
        """A page of a listing."""
        with self._errors(action, question["Bucket"]):
            page = self._client().list_objects_v2(**question)
        if "Name" not in page:  # as when a web server, or the service's console, says 200 to everything
            why = f"{self._service.endpoint} is no S3 service: check the endpoint"
            raise StorageError(f"cannot {action} bucket {question['Bucket']!r}: {why}")
        return page

    def requests(self) -> Requests:
        with self._counting:
            return Requests(**self._sent)

    def _count(self, request: Any, event_name: str, **_: Any) -> None:
        """Count a request that is about to be sent; the SDK tells of each, and again when it repeats it."""
        operation = event_name.rpartition(".")[2]
        if operation.startswith(("Delete", "Abort")):
            kind = "deletes"
        else:
            kind = "puts" if request.method in ("PUT", "POST") or operation.startswith("List") else "gets"
        with self._counting:
            self._sent[kind] += 1

    def prepare(self) -> None:
        self._client()

    def close(self) -> None:
        with self._lock:
            if self._made is not None and self._owner == os.getpid():
                self._made.close()
            self._made = None

    # ---------------------------------------------------------------- the SDK

    def _client(self) -> Any:
        with self._lock:
            if self._made is None or self._owner != os.getpid():
                self._made, self._owner = self._new_client(), os.getpid()
            return self._made

    def _new_client(self) -> Any:
        try:
            exceptions = importlib.import_module(f"{self.sdk}.exceptions")
        except ImportError as error:
            text = f"this storage needs {self.sdk}, which is not installed: pip install 'lithops_mini[{self.extra}]'"
            raise ConfigError(text) from error
        from urllib3.exceptions import HTTPError  # of bodies: the SDK does not translate all of them

        self._failures = (exceptions.BotoCoreError, exceptions.ClientError, HTTPError)
        try:
            client = self._connect()
        except ValueError as error:
            raise ConfigError(f"the storage cannot be used so: {error}") from error
        self._service = Service(
            client.meta.endpoint_url, client.meta.region_name, self.credentials_hint, self.permissions
        )
        client.meta.events.register_first("needs-retry.s3", _repeat)
        client.meta.events.register("before-send.s3", self._count)
        return client

    def _config(self, **settings: Any) -> Any:
        """The SDK's own settings: how often it tries, how long it waits, how many connections it keeps."""
        return importlib.import_module(f"{self.sdk}.config").Config(
            retries={"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
            connect_timeout=10,
            read_timeout=60,
            max_pool_connections=_CONNECTIONS,
            tcp_keepalive=True,
            **settings,
        )

    @contextmanager
    def _errors(self, action: str, bucket: str) -> Iterator[None]:
        """The SDK's errors in the ``with`` block become ours."""
        try:
            yield
        except self._failures as error:
            raise self._translated(action, bucket, error) from error

    def _translated(self, action: str, bucket: str, error: Exception) -> Exception:
        return translated(error, action, f"bucket {bucket!r}", self._service)

    def _download(self, bucket: str, key: str, start: int, stop: int | None, etag: str | None) -> s3_transfer.Download:
        if start < 0 or (stop is not None and stop < 0):
            raise InputError(f"the byte range ({start}, {stop}) is not one: positions count from 0")
        check_bucket(bucket)
        check_key(key)
        fetch, failure = partial(self._fetch, bucket, key), partial(self._translated, f"read {key!r} in", bucket)
        return s3_transfer.Download(fetch, start, stop, etag, failure)

    def _fetch(self, bucket: str, key: str, start: int, stop: int | None, etag: str | None) -> Any:
        """What ``s3_transfer.Fetch`` promises."""
        if stop is not None and start >= stop:
            self.head(bucket, key)
            return None
        question: dict[str, Any] = {"Bucket": bucket, "Key": key}
        ranged = bool(start) or stop is not None
        if ranged:
            question["Range"] = f"bytes={start}-" if stop is None else f"bytes={start}-{stop - 1}"
        if etag is not None:
            question["IfMatch"] = f'"{etag}"'
        with self._errors(f"read {key!r} in", bucket):
            client = self._client()
            try:
                answer = client.get_object(**question)
            except client.exceptions.ClientError as error:
                if code_of(error) in ("InvalidRange", "416"):
                    return None
                if code_of(error) in ("NoSuchKey", "404"):
                    raise _missing(bucket, key) from error
                raise
        if ranged and "ContentRange" not in answer:
            answer["Body"].close()
            raise StorageError(f"{self._service.endpoint} does not read ranges, and {key!r} was to be read in part")
        return answer


def check_bucket(bucket: str) -> str:
    """The name, if a bucket can have it; ``InputError`` if not."""
    if not isinstance(bucket, str) or not _BUCKET_NAME.fullmatch(bucket):
        raise InputError(
            f"{bucket!r} cannot be a bucket: its name is 3 to 63 lower-case letters, digits, '-' and '.', and begins"
            " with a letter or digit"
        )
    return bucket


def check_key(key: str) -> str:
    """The key, if an object can have it; ``InputError`` if not."""
    if not isinstance(key, str) or not key or not _fits(key):
        raise InputError(f"{key!r:.200} cannot be a key: it is 1 to 1,024 bytes of UTF-8, without control characters")
    return key


def _fits(text: str) -> bool:
    try:
        return len(text.encode()) <= _LONGEST_KEY and not _NO_XML.search(text)
    except UnicodeEncodeError:  # half a surrogate pair
        return False


def _checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    checked = dict(metadata or {})
    if not all(isinstance(text, str) for pair in checked.items() for text in pair):
        raise InputError("metadata maps strings to strings")
    for name, value in checked.items():
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name, re.ASCII) or not value.isascii() or value != value.strip():
            raise InputError(
                f"metadata {name!r}: {value!r:.100} cannot be kept: names are lower-case letters, digits, '-', '_' and"
                " '.', and values ASCII without blanks at their ends"
            )
    if (size := sum(len(text) for pair in checked.items() for text in pair)) > MAX_METADATA:
        raise InputError(f"metadata of {size:,} bytes is too large: at most {MAX_METADATA:,}")
    return checked


def _put_at_once(client: Any, target: dict[str, str], metadata: dict[str, str], if_absent: bool, body: bytes) -> None:
    condition = {"IfNoneMatch": "*"} if if_absent else {}
    client.put_object(**target, **condition, Metadata=metadata, Body=body)


def _put_in_parts(
    client: Any,
    target: dict[str, str],
    metadata: dict[str, str],
    if_absent: bool,
    first: bytes,
    *,
    rest: Iterator[bytes],
) -> None:
    checked = client.meta.config.request_checksum_calculation == "when_supported"
    algorithm = {"ChecksumAlgorithm": "CRC32"} if checked else {}
    condition = {"IfNoneMatch": "*"} if if_absent else {}
    upload = target | {"UploadId": client.create_multipart_upload(**target, **algorithm, Metadata=metadata)["UploadId"]}

    def store(number: int, data: bytes) -> dict[str, Any]:
        answer = client.upload_part(**upload, PartNumber=number, Body=data)
        return {"PartNumber": number} | {name: answer[name] for name in ("ETag", "ChecksumCRC32") if name in answer}

    try:
        stored = s3_transfer.in_parallel(partial(store, *part) for part in enumerate(chain([first], rest), 1))
        client.complete_multipart_upload(**upload, **condition, MultipartUpload={"Parts": stored})
    except BaseException as error:
        try:
            client.abort_multipart_upload(**upload)
        except client.exceptions.NoSuchUpload:  # it was completed, or its parts have gone already
            raise error from None
        except client.exceptions.ClientError as second:
            error.add_note(f"the parts already sent stay in the bucket and cost: abort {upload['UploadId']} ({second})")
        raise


def _repeat(attempts: int, response: Any, caught_exception: Exception | None = None, **_: Any) -> float | None:
    """Tell the SDK to send a request again, after so many seconds; ``None``: as it sees fit.

    Raises what it would repeat, or follow, in vain.
    """
    if caught_exception is not None and any(reason in str(caught_exception) for reason in _LASTING):
        raise caught_exception
    if response is None:
        return None
    http, answer = response
    code = answer.get("Error", {}).get("Code", "")
    moved = http.status_code in (301, 302, 307, 308) and code in ("", str(http.status_code))
    if moved and "x-amz-bucket-region" not in http.headers:  # the SDK would ask there for the region, for ever
        target = _origin(http.headers.get("Location", "")) or "another place"
        raise StorageError(f"{_origin(http.url)} is no S3 service: it redirects to {target}; check the endpoint")
    return 0.1 * 2**attempts if code in _REPEATED and attempts < _ATTEMPTS else None


def _origin(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _exists(bucket: str, key: str) -> ObjectExists:
    return ObjectExists(f"there is an object {key!r} in bucket {bucket!r} already")


def _missing(bucket: str, key: str) -> NoSuchObject:
    return NoSuchObject(f"there is no object {key!r} in bucket {bucket!r}")


def _info(key: str, size: int, answer: Mapping[str, Any], metadata: Mapping[str, str]) -> ObjectInfo:
    return ObjectInfo(key, size, answer["ETag"].strip('"'), answer["LastModified"].timestamp(), metadata)
