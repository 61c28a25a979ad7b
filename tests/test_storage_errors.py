"""What users are told when an S3 service cannot be used: one sentence, with the way out."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import parse_qs
from urllib.request import Request, urlopen

import pytest
from engines import free_ports
from proxy import Fault, Proxy
from test_storage_s3 import aws, cos

from lithops_mini.errors import AccessDenied, ConfigError, InputError, NoSuchBucket, StorageError
from lithops_mini.storage import s3
from lithops_mini.storage.ibm_cos import IbmCosOptions, IbmCosStorage

BOTH = pytest.mark.parametrize("make", [aws, cos], ids=["aws_s3", "ibm_cos"])


@pytest.fixture(autouse=True)
def no_credentials_around(monkeypatch, tmp_path):
    """Neither the user's own configuration nor the metadata service of the machine."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "IBM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def one_sentence(error):
    text = str(error)
    assert "\n" not in text
    assert len(text) < 400
    return text


@BOTH
def test_no_credentials(swift, make):
    storage = make(swift, access_key_id=None, secret_access_key=None)
    with pytest.raises(AccessDenied, match="no credentials were found: ") as caught:
        storage.head_bucket("bucket")
    assert "set" in one_sentence(caught.value)


@BOTH
def test_a_wrong_secret(swift, make):
    storage = make(swift, secret_access_key="not-the-secret")
    for use in (
        lambda: storage.head_bucket("errors"),
        lambda: storage.create_bucket("errors"),
        lambda: storage.get("errors", "key"),
        lambda: storage.head("errors", "key"),
        lambda: storage.put("errors", "key", b""),
        lambda: storage.delete("errors", ["key"]),
    ):
        with pytest.raises(AccessDenied, match="secret access key does not belong") as caught:
            use()
        assert "not-the-secret" not in one_sentence(caught.value)


@BOTH
def test_a_wrong_region(swift, make):
    make(swift).create_bucket("errors")
    elsewhere = make(swift, region="eu-central-1")
    elsewhere.put("errors", "key", b"body")  # the SDK asks the service for the bucket's region
    assert elsewhere.get("errors", "key") == b"body"
    if make is aws:
        with pytest.raises(StorageError, match="the service has no region 'eu-central-1'") as caught:
            aws(swift, region="eu-central-1").create_bucket("errors-elsewhere")
        one_sentence(caught.value)


@contextmanager
def answering(status, headers=(), body=b""):
    """A server that says the same to everything, as the endpoint's settings."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", len(body))):
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

        def log_message(self, *args):
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_address[1]}"


@contextmanager
def serving(server):
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def at(make, swift, url, **settings):
    return make(swift, **{"endpoint_url" if make is aws else "endpoint": url}, **settings)


USES = {
    "open": lambda storage: storage.head_bucket("errors"),
    "create": lambda storage: storage.create_bucket("errors"),
    "read": lambda storage: storage.get("errors", "key"),
    "describe": lambda storage: storage.head("errors", "key"),
    "store": lambda storage: storage.put("errors", "key", b""),
    "list": lambda storage: list(storage.list("errors")),
    "delete": lambda storage: storage.delete("errors", ["key"]),
}


@BOTH
@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (301, "PermanentRedirect", "header"),
        (400, "AuthorizationHeaderMalformed", "body"),
        (400, "IllegalLocationConstraintException", "header"),
    ],
)
def test_the_region_of_a_bucket_is_named(swift, make, status, code, told):
    # what AWS answers where the endpoint is set, so that the SDK cannot go to the right one by itself
    region = "<Region>us-west-2</Region>" if told == "body" else ""
    body = f"<Error><Code>{code}</Code><Message>wrong</Message>{region}</Error>".encode()
    headers = [("x-amz-bucket-region", "us-west-2")] if told == "header" else []
    with answering(status, headers, body) as url:
        storage = at(make, swift, url, region="eu-central-1")
        for name, use in USES.items():
            with pytest.raises(StorageError, match="'errors'") as caught:
                use(storage)
            expected = (
                "it is in 'us-west-2', not in 'eu-central-1': set the region, and the endpoint if you set one, to"
            )
            assert expected in one_sentence(caught.value), name


@BOTH
@pytest.mark.parametrize("status", [400, 403, 404, 405])
def test_a_server_that_is_none_of_s3(swift, make, status):
    page = b"<html><body>It works!</body></html>"
    with answering(status, [("Content-Type", "text/html")], page) as url:
        storage = at(make, swift, url)
        for name, use in USES.items():
            with pytest.raises(StorageError, match=f"{url} does not answer as an S3 service") as caught:
                use(storage)
            assert f"(HTTP {status}): check the endpoint" in one_sentence(caught.value), name


@BOTH
def test_a_server_that_says_yes_to_everything(swift, make):
    with answering(200, [("Content-Type", "text/html")], b"<html><body>It works!</body></html>") as url:
        storage = at(make, swift, url)
        for use in ("open", "create", "list"):
            with pytest.raises(StorageError, match=f"{url} is no S3 service: check the endpoint") as caught:
                USES[use](storage)
            one_sentence(caught.value)


@BOTH
def test_an_endpoint_that_has_moved(swift, make):
    with answering(301, [("Location", "https://minio.example.com/errors?x")]) as url:
        storage = at(make, swift, url)
        for name, use in USES.items():
            with pytest.raises(StorageError, match=f"{url} is no S3 service") as caught:
                use(storage)
            assert "it redirects to https://minio.example.com; check the endpoint" in one_sentence(caught.value), name


@BOTH
def test_an_endpoint_without_tls(swift, make):
    began = time.monotonic()
    with pytest.raises(StorageError, match="does not speak TLS: begin it with http:") as caught:
        at(make, swift, swift.url.replace("http:", "https:")).head_bucket("errors")
    one_sentence(caught.value)
    assert time.monotonic() - began < 15  # it stays so: nothing is repeated, which would take half a minute


@BOTH
def test_a_missing_bucket(swift, make):
    with pytest.raises(NoSuchBucket, match="'errors-missing': there is no such bucket") as caught:
        make(swift).get("errors-missing", "key")
    one_sentence(caught.value)


@BOTH
def test_access_denied_names_what_is_needed(swift, make):
    make(swift).create_bucket("errors")
    reader = make(swift, access_key_id="test:reader", secret_access_key="secret-of-the-reader")
    with pytest.raises(AccessDenied, match=r"they need (s3:PutObject|the role Writer)") as caught:
        reader.put("errors", "key", b"")
    assert "cannot store 'key' in bucket 'errors'" in one_sentence(caught.value)
    with pytest.raises(AccessDenied):
        reader.head("errors", "key")


@BOTH
def test_objects_that_cannot_be_deleted_are_named(swift, make):
    answer = b"<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    make(swift).create_bucket("errors")
    with Proxy(swift) as proxy:
        proxy.script = lambda request: Fault(status=(200, answer.decode())) if request.kind == "delete" else None
        with pytest.raises(AccessDenied, match="delete 1 of 3 objects in bucket 'errors', the first being 'b'"):
            make(proxy.engine).delete("errors", ["a", "b", "c"])


@BOTH
def test_a_clock_that_is_wrong(swift, make, monkeypatch):
    storage = make(swift)
    storage.create_bucket("errors")
    auth = importlib.import_module(f"{storage.sdk}.auth")

    class Slow(datetime.datetime):
        @classmethod
        def utcnow(cls):
            return datetime.datetime.now(datetime.UTC).replace(tzinfo=None) - datetime.timedelta(hours=1)

    if make is aws:
        monkeypatch.setattr(auth, "get_current_datetime", lambda *_, **__: Slow.utcnow())
    else:
        monkeypatch.setattr(auth, "datetime", SimpleNamespace(datetime=Slow))
    with pytest.raises(AccessDenied, match="the clock of this machine is wrong") as caught:
        storage.head_bucket("errors")
    one_sentence(caught.value)


@BOTH
def test_an_endpoint_that_is_not_there(swift, make, monkeypatch):
    monkeypatch.setattr(s3, "_ATTEMPTS", 2)  # it may just be starting, so the SDK waits for it
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    storage = at(make, swift, url)
    with pytest.raises(StorageError, match=f"{url}/? cannot be reached: check the endpoint") as caught:
        storage.head_bucket("errors")
    one_sentence(caught.value)


@BOTH
def test_an_endpoint_that_is_none(swift, make):
    storage = at(make, swift, "minio:9000")
    with pytest.raises(ConfigError, match="minio:9000"):
        storage.head_bucket("errors")


def test_a_profile_that_is_not_there(swift):
    storage = aws(swift, access_key_id=None, secret_access_key=None, profile="nobody")
    with pytest.raises(AccessDenied, match="nobody"):
        storage.head_bucket("errors")


@pytest.fixture
def certificate(tmp_path):
    files = [str(tmp_path / "certificate.pem"), str(tmp_path / "key.pem")]
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-out", files[0]]
    subprocess.run([*command, "-keyout", files[1]], check=True, capture_output=True)
    return files


@BOTH
def test_a_certificate_of_ones_own(swift, make, certificate):
    with Proxy(swift) as proxy:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        url = proxy.secure(context)
        storage = at(make, swift, url, ca_bundle=certificate[0])
        storage.create_bucket("errors")
        storage.put("errors", "key", b"body")
        assert storage.get("errors", "key") == b"body"
        began = time.monotonic()
        with pytest.raises(StorageError, match="is not trusted: set ca_bundle") as caught:
            at(make, swift, url).head_bucket("errors")
        one_sentence(caught.value)
        assert time.monotonic() - began < 15  # it stays so: nothing is repeated


@BOTH
def test_names_and_values_that_no_service_takes(swift, make):
    storage = make(swift)
    for metadata in ({"Upper": "x"}, {"a": "ü"}, {"a": " x"}, {"": "x"}):
        with pytest.raises(InputError):
            storage.put("errors", "key", b"", metadata=metadata)
    for bad in ({"method": "post"}, {"expires": 0}, {"expires": 8 * 86400}):
        with pytest.raises(InputError):
            storage.presigned_url("errors", "key", **bad)


@BOTH
def test_presigned_urls(swift, make):
    storage = make(swift)
    storage.create_bucket("errors")
    with urlopen(Request(storage.presigned_url("errors", "a b", method="put"), b"body", method="PUT")) as answer:
        assert answer.status == 200
    url = storage.presigned_url("errors", "a b", expires=60)
    assert "secret" not in url
    with urlopen(url) as answer:
        assert answer.read() == b"body"


def test_options_that_do_not_go_together():
    for options, message in (
        ({"region": "eu-de", "access_key_id": "a"}, "belong together"),
        ({"region": "eu-de", "access_key_id": "a", "secret_access_key": "b", "iam_api_key": "c"}, "give one"),
        ({}, "say where the buckets are"),
    ):
        with pytest.raises(ValueError, match=message):
            IbmCosOptions(**options)


@pytest.mark.parametrize("name", ["aws_s3", "ibm_cos"])
def test_a_missing_sdk_says_how_to_install_it(name):
    extra = name.partition("_")[0]
    program = (
        "import sys; sys.modules['botocore.exceptions'] = sys.modules['ibm_botocore.exceptions'] = None\n"
        "from lithops_mini.registry import find\n"
        f"kind = find('storage', {name!r})\n"
        "kind(kind.Options(region='eu-de')).head_bucket('bucket')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert f"pip install 'lithops_mini[{extra}]'" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["aws_s3", "ibm_cos"])
def test_the_sdk_is_imported_when_it_is_needed(name):
    program = (
        "import sys\nfrom lithops_mini.registry import find\n"
        f"kind = find('storage', {name!r})\nkind(kind.Options(region='eu-de'))\n"
        "assert not {'boto3', 'botocore', 'ibm_boto3', 'ibm_botocore', 'urllib3', 'requests'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_endpoints_of_ibm(monkeypatch):
    def endpoint(**options):
        return IbmCosStorage(IbmCosOptions(**options))._endpoint()

    assert endpoint(region="eu-de") == "https://s3.eu-de.cloud-object-storage.appdomain.cloud"
    assert endpoint(region="us", network="private") == "https://s3.private.us.cloud-object-storage.appdomain.cloud"
    assert endpoint(region="eu-de", network="direct") == "https://s3.direct.eu-de.cloud-object-storage.appdomain.cloud"
    both = {"endpoint": "https://outside", "private_endpoint": "https://inside"}
    assert endpoint(**both) == "https://outside"
    monkeypatch.setenv("CE_REGION", "eu-de")
    assert endpoint(**both) == "https://inside"


# ---------------------------------------------------------------- IAM


class _Iam(BaseHTTPRequestHandler):
    def do_POST(self):
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.forms.append(form)
        right = form.get("apikey") == ["the-api-key"] or "refresh_token" in form
        token = {
            "access_token": f"token-{len(self.server.forms)}",
            "refresh_token": "refresh",
            "token_type": "Bearer",
            "expires_in": self.server.lifetime,
            "expiration": int(time.time()) + self.server.lifetime,
        }
        body = json.dumps(token if right else {"errorMessage": "Provided API key could not be found."}).encode()
        self.send_response(200 if right else 400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def iam():
    """A token endpoint that knows one API key."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Iam)
    server.forms, server.lifetime = [], 3600
    server.url = f"http://127.0.0.1:{server.server_address[1]}/identity/token"
    with serving(server):
        yield server


def with_api_key(proxy, iam, key="the-api-key"):
    keys = {"access_key_id": None, "secret_access_key": None, "iam_api_key": key}
    return cos(proxy.engine, **keys, iam_endpoint=iam.url, service_instance_id="crn:instance")


def tokens(proxy):
    return {request.headers.get("authorization") for request in proxy.requests}


def test_an_api_key_is_exchanged_once(moto, iam):
    with Proxy(moto) as proxy:
        storage = with_api_key(proxy, iam)
        storage.create_bucket("iam-bucket")
        storage.put("iam-bucket", "key", b"body", if_absent=True)
        assert storage.get("iam-bucket", "key") == b"body"
        assert tokens(proxy) == {"Bearer token-1"}
        created = [request for request in proxy.requests if request.kind == "create_bucket"]
        assert created[0].headers["ibm-service-instance-id"] == "crn:instance"
        assert len(iam.forms) == 1
        assert "the-api-key" not in repr(storage._options) + str(storage.worker_options())
        storage.close()


def test_a_token_is_renewed_before_it_ends(moto, iam):
    iam.lifetime = 4
    with Proxy(moto) as proxy:
        storage = with_api_key(proxy, iam)
        storage.create_bucket("iam-bucket")
        deadline = time.monotonic() + 30
        while len(tokens(proxy)) < 2 and time.monotonic() < deadline:
            storage.put("iam-bucket", "key", b"body")
        assert len(tokens(proxy)) >= 2
        assert len(iam.forms) < 8
        storage.close()


def test_a_wrong_api_key(moto, iam):
    with Proxy(moto) as proxy, pytest.raises(AccessDenied, match="credentials") as caught:
        with_api_key(proxy, iam, "another-key").head_bucket("iam-bucket")
    assert "another-key" not in one_sentence(caught.value)
