"""Public URLs: what a server says of one, and ranges of its bytes."""

from __future__ import annotations

import email.message
import http.client
import io
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from lithops_mini.errors import AccessDenied, InputError, IntegrityError, NoSuchObject, StorageError, StorageUnavailable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

TIMEOUT = 60.0  # seconds to connect, and for each wait for bytes
_PASSING = (408, 429, 500, 502, 503, 504)  # answers that may be others a moment later
_NOT_ENCODED = "%/:=&?~#+!$,;'@()*[]"  # characters of a URL that are right as they are


@dataclass(frozen=True, slots=True)
class UrlInfo:
    """What a server says of a URL."""

    size: int | None  # bytes; None: it does not say
    ranged: bool  # it answers range requests
    etag: str | None  # ETag or Last-Modified: changes when the content does; None: it does not say
    encoding: str  # Content-Encoding, empty if none


def probe(url: str) -> UrlInfo:
    """Ask for the first byte: the answer tells whether the server cuts ranges, whatever its headers promise.

    A HEAD request would not, and URLs that are signed for GET refuse it.
    """
    try:
        response = _request(url, {"Range": "bytes=0-0"})
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # there is no first byte
                return UrlInfo(0, False, version(error.headers), "")
            _fail(url, error)
    with response:
        headers = response.headers
        etag, encoding = version(headers), (headers.get("Content-Encoding") or "").lower()
        if response.status == 206:
            size = _range(headers)[2]
            return UrlInfo(size, size is not None, etag, encoding)
        length = headers.get("Content-Length", "")
        return UrlInfo(int(length) if length.isdecimal() else None, False, etag, encoding)


def open_range(url: str, start: int, stop: int | None, size: int | None, etag: str | None) -> UrlStream:
    """Open bytes ``[start, stop)`` of a URL of ``size`` bytes (``None``: unknown, then all of it must be asked for).

    ``IntegrityError`` if it is not the version ``etag`` any more, ``StorageError`` if the server sends something else.
    """
    whole = start == 0 and stop == size
    headers = {}
    if not whole:
        assert stop is not None
        headers["Range"] = f"bytes={start}-{stop - 1}"
        if etag and not etag.startswith("W/"):
            headers["If-Range"] = etag
    try:
        response = _request(url, headers)
    except urllib.error.HTTPError as error:
        with error:
            _fail(url, error)
    try:
        found = version(response.headers)
        if etag and found and found != etag:
            raise IntegrityError(f"{url} changed after it was planned: its version is {found}, it was {etag}")
        length = response.headers.get("Content-Length", "")
        if whole and size is not None and length.isdecimal() and int(length) != size:
            raise IntegrityError(f"{url} changed after it was planned: it has {length} bytes, it had {size}")
        if not whole and (response.status != 206 or _range(response.headers) != (start, stop, size)):
            got = response.headers.get("Content-Range", "no Content-Range")
            raise StorageError(
                f"{url}: the server was asked for {headers['Range']} of {size} bytes "
                f"and answered {response.status} with {got}"
            )
    except BaseException:
        response.close()
        raise
    return UrlStream(url, response)


class UrlStream(io.RawIOBase):
    """The body of a response; its errors are ours."""

    def __init__(self, url: str, response: http.client.HTTPResponse) -> None:
        self._url = url
        self._response = response

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        try:
            count = self._response.readinto(buffer)
        except (OSError, http.client.HTTPException) as error:
            raise StorageUnavailable(f"{self._url}: the connection failed while reading: {error}") from error
        missing = self._response.length
        if missing and not count and len(memoryview(buffer)):
            raise StorageUnavailable(f"{self._url}: the connection failed while reading: {missing} bytes did not come")
        return count

    def close(self) -> None:
        self._response.close()
        super().close()


def version(headers: email.message.Message) -> str | None:
    """The header that changes when the content does."""
    return headers.get("ETag") or headers.get("Last-Modified")


def _request(url: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """Send a GET request, following redirects. ``HTTPError`` is the caller's; a failure to connect is ours."""
    try:
        request = urllib.request.Request(urllib.parse.quote(url, safe=_NOT_ENCODED))
        for name, value in {"Accept-Encoding": "identity", "User-Agent": "lithops_mini", **headers}.items():
            request.add_header(name, value)
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
        return response
    except urllib.error.HTTPError:
        raise
    except (ValueError, http.client.InvalidURL) as error:
        raise InputError(f"{url!r} is not a URL that can be read: {error}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise StorageUnavailable(f"{url} cannot be reached: {reason}") from error


def _fail(url: str, error: urllib.error.HTTPError) -> NoReturn:
    other = StorageUnavailable if error.code in _PASSING else StorageError
    kind = {401: AccessDenied, 403: AccessDenied, 404: NoSuchObject, 410: NoSuchObject}.get(error.code, other)
    raise kind(f"{url}: the server answered {error.code} {error.reason}") from error


def _range(headers: http.client.HTTPMessage) -> tuple[int, int, int | None] | tuple[None, None, None]:
    """Start, stop and whole size, from Content-Range."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("Content-Range", "").strip())
    if not match:
        return None, None, None
    first, last, size = match.groups()
    return int(first), int(last) + 1, None if size == "*" else int(size)
