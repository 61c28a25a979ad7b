"""Real servers for the tests: OpenStack Swift with its S3 API, which checks signatures, and moto's server, which does
what Swift cannot. Each is started on loopback when a test first asks for it and ends with the session.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / "build" / "engines"
SWIFT_VERSION = "2.38.3"
_START_LIMIT = 60.0  # seconds


class EngineMissing(Exception):
    """An engine cannot be installed here."""


@dataclass(frozen=True)
class Engine:
    """A running S3 service."""

    url: str
    region: str = "us-east-1"
    access_key_id: str = "test:tester"
    secret_access_key: str = "secret-of-the-tester"

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def start_swift() -> Iterator[Engine]:
    """OpenStack Swift, installed below ``build/engines``: one replica, objects in memory, no durability."""
    executables = install_swift()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ports = dict(zip(("proxy", "object", "container", "account"), free_ports(4), strict=True))
        _configure_swift(directory, ports, executables / "python")
        for name in ports:
            command = [str(executables / f"swift-{name}-server"), str(directory / f"{name}.conf"), "-v"]
            stack.enter_context(_running(command, directory / f"{name}.log", PYTHONPATH=str(directory)))
        engine = Engine(f"http://127.0.0.1:{ports['proxy']}")
        for port in ports.values():
            await_port(port, directory / "proxy.log")
        _await(f"{engine.url}/healthcheck", directory / "proxy.log")
        yield engine


@contextmanager
def start_moto(*, unchecked: int | None = None) -> Iterator[Engine]:
    """moto's server: exact in conditional writes.

    It believes every signature and permits everything; with ``unchecked`` only of so many requests. Those after them it
    checks against the users, keys and policies of its IAM.
    """
    (port,) = free_ports(1)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        checks = {} if unchecked is None else {"INITIAL_NO_AUTH_ACTION_COUNT": str(unchecked)}
        stack.enter_context(_running(command, directory / "log", **checks))
        engine = Engine(f"http://127.0.0.1:{port}", access_key_id="test", secret_access_key="secret-of-the-test")
        _await(f"{engine.url}/moto-api/", directory / "log")
        yield engine


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody uses now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _running(command: list[str], log: Path, **environment: str) -> Iterator[None]:
    environment |= {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # nothing of these is kept, so nothing must be put in order
        process.wait()


def await_port(port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            _give_up_after(deadline, log)
        else:
            return


def _await(url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_LIMIT
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return
        except (urllib.error.URLError, OSError):
            _give_up_after(deadline, log)


def _give_up_after(deadline: float, log: Path) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError(f"the server did not start:\n{log.read_text()[-4000:]}")
    time.sleep(0.05)  # a server says nowhere that it has started


def install_swift() -> Path:
    """Return the directory of Swift's executables, in an environment of its own: its dependencies must not be ours.

    ``EngineMissing`` if it cannot be installed.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / f"swift-{SWIFT_VERSION}"
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "complete").exists():
            try:
                subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True, capture_output=True)
                pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", f"swift=={SWIFT_VERSION}"]
                subprocess.run(pip, check=True, capture_output=True)
            except subprocess.CalledProcessError as error:
                raise EngineMissing(f"OpenStack Swift: {error.stderr.decode(errors='replace')[-2000:]}") from error
            (target / "complete").touch()
    return target / "bin"


_SERVER = """
    [DEFAULT]
    swift_dir = {directory}
    devices = {directory}/disks
    mount_check = false
    bind_ip = 127.0.0.1
    bind_port = {port}
    workers = 0
    user = {user}
    disable_fallocate = true
    fallocate_reserve = 0
    log_level = WARNING
    """
_STORE = """
    [pipeline:main]
    pipeline = {name}-server
    [app:{name}-server]
    use = egg:swift#{application}
    recon_cache_path = {directory}
    """
_PROXY = """
    [pipeline:main]
    pipeline = catch_errors gatekeeper healthcheck listing_formats cache s3api tempauth copy slo dlo versioned_writes symlink proxy-server
    [filter:catch_errors]
    use = egg:swift#catch_errors
    [filter:gatekeeper]
    use = egg:swift#gatekeeper
    [filter:healthcheck]
    use = egg:swift#healthcheck
    [filter:listing_formats]
    use = egg:swift#listing_formats
    [filter:cache]
    paste.filter_factory = local_cache:filter_factory
    [filter:s3api]
    use = egg:swift#s3api
    location = us-east-1
    allow_no_owner = true
    max_upload_part_num = 10000
    max_bucket_listing = 100
    [filter:tempauth]
    use = egg:swift#tempauth
    user_test_tester = secret-of-the-tester .admin
    user_test_reader = secret-of-the-reader
    [filter:copy]
    use = egg:swift#copy
    [filter:slo]
    use = egg:swift#slo
    max_manifest_segments = 10000
    allow_async_delete = false
    max_manifest_size = 16777216
    [filter:dlo]
    use = egg:swift#dlo
    [filter:versioned_writes]
    use = egg:swift#versioned_writes
    allow_object_versioning = true
    [filter:symlink]
    use = egg:swift#symlink
    [app:proxy-server]
    use = egg:swift#proxy
    account_autocreate = true
    allow_account_management = true
    """  # noqa: E501 - a pipeline is one line
_CACHE = """
    import time

    class Cache:
        '''What Swift asks of memcached, in the only process that asks.'''

        def __init__(self):
            self.values = {}

        def get(self, key, raise_on_error=False):
            value, until = self.values.get(key, (None, None))
            return value if until is None or until > time.time() else None

        def set(self, key, value, serialize=True, time=0, min_compress_len=0, raise_on_error=False):
            self.values[key] = (value, now() + time if time else None)

        def delete(self, key, server_key=None):
            self.values.pop(key, None)

    now = time.time

    def filter_factory(global_conf, **local_conf):
        cache = Cache()

        def wrap(application):
            def cached(environment, start_response):
                environment["swift.cache"] = cache
                return application(environment, start_response)

            return cached

        return wrap
    """
_RINGS = """
    import sys
    from swift.common.ring import RingBuilder
    for argument in sys.argv[2:]:
        name, port = argument.split("=")
        builder = RingBuilder(4, 1, 0)
        builder.add_dev({"region": 1, "zone": 1, "ip": "127.0.0.1", "port": int(port), "device": "disk", "weight": 1})
        builder.rebalance()
        builder.get_ring().save(f"{sys.argv[1]}/{name}.ring.gz")
    """


def _configure_swift(directory: Path, ports: dict[str, int], python: Path) -> None:
    (directory / "disks" / "disk").mkdir(parents=True)
    (directory / "local_cache.py").write_text(textwrap.dedent(_CACHE))
    (directory / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = test\n[storage-policy:0]\nname = Policy-0\ndefault = yes\n"
    )
    for name, port in ports.items():
        text = textwrap.dedent(_SERVER) + textwrap.dedent(_PROXY if name == "proxy" else _STORE)
        # Objects are kept in memory: a disk would be asked to make each of them durable.
        application = "mem_object" if name == "object" else name
        filled = text.format(directory=directory, name=name, application=application, port=port, user=getpass.getuser())
        (directory / f"{name}.conf").write_text(filled)
    stores = [f"{name}={port}" for name, port in ports.items() if name != "proxy"]
    subprocess.run([str(python), "-c", textwrap.dedent(_RINGS), str(directory), *stores], check=True)
