"""A Docker engine for the tests: the one that runs here, or one of the session's own, which shares nothing with it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engines import CACHE, EngineMissing, await_port, free_ports

_START_LIMIT = 60.0  # seconds
_STOP_LIMIT = 30.0


class OwnEngine:
    """A dockerd below a directory, with containerd, network and images of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bridge = f"lm{os.urandom(4).hex()}"
        self._process: subprocess.Popen[bytes] | None = None
        self.host = f"unix://{directory}/docker.sock"

    def start(self) -> None:
        """Return when it can be used. ``EngineMissing``, with the end of its log, if it does not start."""
        network = f"10.{os.getpid() % 200 + 20}.{os.urandom(1)[0]}.1/24"
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "address", "add", network, "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        self.run()

    def run(self) -> None:
        """Start the daemon, also again."""
        command = ["dockerd", "--host", self.host, "--bridge", self._bridge]
        for option, name in {"data-root": "data", "exec-root": "run", "pidfile": "pid"}.items():
            command += [f"--{option}", str(self._directory / name)]
        if _others_run():  # they have made rules for their own networks, and a second engine would replace them
            command.append("--iptables=false")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            address = self._directory / "ready"
            address.unlink(missing_ok=True)
            ready.bind(str(address))
            ready.settimeout(1)
            log = self._directory / "log"
            with open(log, "ab") as output:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "NOTIFY_SOCKET": str(address)},
                    start_new_session=True,
                )
            for _ in range(int(_START_LIMIT)):
                with suppress(TimeoutError):
                    if b"READY=1" in ready.recv(1000):
                        return
                if self._process.poll() is not None:
                    break
        self.stop()
        raise EngineMissing(f"a Docker engine, and dockerd does not start here: {log.read_text()[-2000:]}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the daemon; its containers end with it, unless it is killed."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(_STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def remove(self) -> None:
        """End it, and remove its network and what it has left mounted."""
        self.stop()
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for path in sorted((path for path in mounted if path.startswith(f"{self._directory}/")), reverse=True):
            subprocess.run(["umount", path], check=True, capture_output=True)
        subprocess.run(["ip", "link", "delete", self._bridge], check=False, capture_output=True)


@contextmanager
def start_docker() -> Iterator[dict[str, str]]:
    """Environment variables that lead to a Docker engine. ``EngineMissing`` if none is here and none can be started."""
    # In a process of its own: of a connection that is refused the SDK does not close the socket.
    program = "import docker; docker.from_env().ping()"
    ask = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    if ask.returncode == 0:
        yield {}
    else:
        with start_own_docker() as engine:
            yield {"DOCKER_HOST": engine.host}


@contextmanager
def start_own_docker() -> Iterator[OwnEngine]:
    """A Docker engine of one's own, without images, that may be stopped and started."""
    install_packages("a Docker engine", ("dockerd", "iptables", "ip"), ("docker.io", "iptables", "iproute2"))
    # Not below pytest's directories, which are kept: and the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="lm-docker-") as directory:
        engine = OwnEngine(Path(directory))
        try:
            engine.start()
            yield engine
        finally:
            engine.remove()


@contextmanager
def start_sshd(directory: Path) -> Iterator[tuple[int, Path]]:
    """The port of an SSH server for this user, and a directory with the ``ssh`` of somebody who may log in there."""
    install_packages("an SSH server", ("sshd", "ssh", "ssh-keygen"), ("openssh-server", "openssh-client"))
    for key in ("user", "host"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key))
    (port,) = free_ports(1)
    host = " ".join((directory / "host.pub").read_text().split()[:2])
    (directory / "known").write_text(f"[127.0.0.1]:{port} {host}\n")
    (directory / "config").write_text(f"IdentityFile {directory}/user\nUserKnownHostsFile {directory}/known\n")
    programs = directory / "bin"
    programs.mkdir()
    # It looks for its configuration where the system says this user lives, not where HOME says.
    (programs / "ssh").write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {directory}/config "$@"\n')
    (programs / "ssh").chmod(0o755)
    options = {"Port": port, "ListenAddress": "127.0.0.1", "HostKey": directory / "host", "PidFile": "none"}
    options |= {"AuthorizedKeysFile": directory / "user.pub", "StrictModes": "no", "PermitRootLogin": "yes"}
    Path("/run/sshd").mkdir(exist_ok=True)  # it wants to have one, even if it does not use it
    command = [shutil.which("sshd") or "sshd", "-D", "-e", "-f", "/dev/null"]
    command += [f"-o{name}={value}" for name, value in options.items()]
    with open(directory / "log", "wb") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            await_port(port, directory / "log")
            yield port, programs
        finally:
            process.terminate()


def install_packages(what: str, programs: tuple[str, ...], packages: tuple[str, ...]) -> None:
    """Install Debian's packages if one of the programs is missing. ``EngineMissing`` if that cannot be done here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        raise EngineMissing(f"{what}: start one, or run the tests as root on Linux, where they start one")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if all(shutil.which(program) for program in programs):
        return
    if not shutil.which("apt-get"):
        raise EngineMissing(f"{what}, and there is no apt-get to install one")
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _run("apt-get", "update")
        # Debian's package would start an engine for the machine, and that is not ours to decide.
        policy = Path("/usr/sbin/policy-rc.d")
        forbid = not policy.exists()
        if forbid:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            _run("apt-get", "install", "--yes", "--no-install-recommends", *packages)
        finally:
            if forbid:
                policy.unlink()


def _run(*command: str) -> None:
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    except subprocess.CalledProcessError as error:
        raise EngineMissing(f"a Docker engine: {' '.join(command)}: {error.stderr[-2000:]}") from error


def _others_run() -> bool:
    for entry in Path("/proc").glob("[0-9]*/comm"):
        with suppress(OSError):  # it has just ended
            if entry.read_text().strip() == "dockerd":
                return True
    return False
