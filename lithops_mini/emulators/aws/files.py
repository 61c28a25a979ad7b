"""The files that sandboxes see: code, layers, and the packages that every Python runtime of Lambda has."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tempfile
import threading
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from lithops_mini.emulators.aws.functions import Function
from lithops_mini.errors import ConfigError

_PACKAGES = ("awslambdaric", "boto3")
# The search path is the one of AWS's own Python runtimes: nothing else of this machine can be imported.
_BOOTSTRAP = """\
import os, sys
task, opt = os.environ["LAMBDA_TASK_ROOT"], os.environ.pop("LITHOPS_MINI_OPT")
python = "python%d.%d" % sys.version_info[:2]
sys.path[:1] = [task, os.path.join(opt, "python", "lib", python, "site-packages"), os.path.join(opt, "python"),
                os.path.dirname(os.path.abspath(__file__))]
from awslambdaric.__main__ import main
main(["awslambdaric", os.environ["_HANDLER"]])
"""


class Files:
    """A directory with what sandboxes share, each thing unpacked once. Removed by ``close``."""

    def __init__(self, *, link: bool) -> None:
        """``link``: sandboxes see this machine's files, so links to them do."""
        self._link = link
        self.directory = Path(tempfile.mkdtemp(prefix="lithops-mini-aws-"))
        self.directory.chmod(0o755)
        self._lock = threading.Lock()
        self.runtime = self._install_runtime()

    def close(self) -> None:
        shutil.rmtree(self.directory)

    def task(self, function: Function) -> Path:
        """The directory of the function's code."""
        return self._unpacked(function.zip)

    def layers(self, function: Function) -> Path:
        """The directory of the function's layers, one laid over the other."""
        return self._unpacked(*function.layer_zips)

    def empty(self) -> Path:
        """A new directory, which is removed by who uses it."""
        return Path(tempfile.mkdtemp(dir=self.directory, prefix="sandbox-"))

    def _unpacked(self, *archives: bytes) -> Path:
        target = (
            self.directory / hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in archives)).hexdigest()
        )
        with self._lock:
            if not target.exists():
                unfinished = self.empty()
                for archive in archives:
                    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
                        for member in opened.infolist():
                            path = opened.extract(member, unfinished)
                            os.chmod(path, 0o755 if member.is_dir() else (member.external_attr >> 16) & 0o777 or 0o644)
                unfinished.chmod(0o755)
                unfinished.rename(target)
        return target

    def _install_runtime(self) -> Path:
        """Copy the packages and what they require from this Python's: Lambda has them, so a function may have not."""
        target = self.directory / "runtime"
        target.mkdir()
        (target / "bootstrap.py").write_text(_BOOTSTRAP)
        wanted, seen = list(_PACKAGES), set()
        while wanted:
            name = wanted.pop()
            if name in seen:
                continue
            seen.add(name)
            try:
                found = distribution(name)
            except PackageNotFoundError as error:
                raise ConfigError(f"the emulator needs {name}: pip install 'lithops_mini[emulators]'") from error
            for top in {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}:
                source = Path(str(found.locate_file(top)))
                if self._link:
                    (target / top).symlink_to(source)
                elif source.is_dir():
                    shutil.copytree(source, target / top)
                else:
                    shutil.copy(source, target / top)
            required = (line for line in found.requires or () if "extra ==" not in line)
            wanted += [match[0] for line in required if (match := re.match(r"[\w.-]+", line))]
        return target
