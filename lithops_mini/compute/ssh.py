"""The socket of an engine on another machine, brought here by the user's own ssh: its keys, agent and configuration."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from lithops_mini.errors import ConfigError

_SOCKET = "/var/run/docker.sock"
# Nobody is there to answer questions; a connection that is dead is to be noticed.
_OPTIONS = ("BatchMode=yes", "ConnectTimeout=20", "ExitOnForwardFailure=yes", "ServerAliveInterval=10")
_END_LIMIT = 5.0  # seconds


class Tunnel:
    """Open from when it is made until ``close``, or until this process ends, however that is."""

    def __init__(self, url: str) -> None:
        """``url``: ``ssh://[user@]host[:port][/path/of/the/socket]``. ``ConfigError`` has ssh's words if it fails."""
        where = urlsplit(url)
        if not where.hostname:
            raise ConfigError(f"{url!r} names no host: write it as ssh://user@host")
        self._directory = tempfile.TemporaryDirectory(prefix="lithops-mini-ssh-")
        local = Path(self._directory.name, "socket")
        self.url = f"unix://{local}"
        command = ["ssh", "-T", "-L", f"{local}:{where.path.rstrip('/') or _SOCKET}"]
        command += [word for option in _OPTIONS for word in ("-o", option)]
        command += ["-p", str(where.port)] if where.port else []
        command += ["-l", where.username] if where.username else []
        # It listens before it says so, and ends when we do: then nobody writes to its input any more.
        command += ["--", where.hostname, "echo ready && exec cat"]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            self._directory.cleanup()
            raise ConfigError(f"ssh cannot be started, which {url} needs: {error}") from error
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            _, said = self._process.communicate()
            self._directory.cleanup()
            raise ConfigError(f"{url} cannot be reached: {said.decode(errors='replace').strip() or 'ssh says nothing'}")

    def close(self) -> None:
        """May be called again."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                self._process.communicate(timeout=_END_LIMIT)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
        self._directory.cleanup()
