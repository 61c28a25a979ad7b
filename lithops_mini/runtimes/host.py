"""A base image made of the interpreter that runs here, where no registry can be reached.

It has that interpreter with its standard library, the shared libraries both need, the certificates this machine trusts,
time zones, a shell and a few tools. It has none of this machine's packages, and no pip; ``python3 -m ensurepip`` makes
one, unless the interpreter is a distribution's that leaves that out.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import IO

from lithops_mini.errors import ConfigError

REPOSITORY = "lithops-mini/host"
MACHINE = platform.machine()

_TOOLS = """
    basename cat chmod chown cp cut date dd df dirname du echo env false find grep gzip head hostname id kill ln ls
    mkdir mktemp mv nproc pwd readlink realpath rm rmdir sed sh sha256sum sleep sort stat tail tar tee test timeout
    touch tr true uname wc which xargs
"""
# The parts of the standard library that a worker has no use for, and those that are not the standard library's.
_LEFT_OUT = re.compile(
    r"(^|/)(test|tests|idlelib|tkinter|turtledemo|lib2to3|config-[^/]*|site-packages|dist-packages|__pycache__)(/|$)"
    r"|(^|/)(turtle\.py|_tkinter\.[^/]*|_test[^/]*\.so|_ctypes_test\.[^/]*|xx[^/]*\.so|[^/]*\.a)$"
)
# Libraries that wheels are linked with and that nothing here may need: stubs of the C library, C++, names of hosts.
_LIBRARIES = (
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
    "libstdc++.so.6",
    "libutil.so.1",
)
_CERTIFICATES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem")
_MODIFIED = 1_000_000_000  # the time of every file, so that the same files make the same image

CHANGES = (
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "ENV LANG=C.UTF-8",
    'CMD ["python3"]',
    "LABEL lithops-mini=host",
)
"""What the engine is told about the image, besides its files."""


@cache
def name() -> str:
    """The name of the base image of this interpreter; another build of it, or of this module, has another name."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in _interpreter():
        digest.update(f"{path}\0{os.stat(path).st_size}\0".encode())
    digest.update(f"{sys.version}\0{MACHINE}\0{platform.libc_ver()}".encode())
    return f"{REPOSITORY}:{sys.version_info.major}.{sys.version_info.minor}-{digest.hexdigest()[:12]}"


def pack(archive: IO[bytes]) -> None:
    """Write the files of the base image to ``archive``, in tar format. ``ConfigError`` if that cannot be done here."""
    if platform.libc_ver()[0] != "glibc":
        raise ConfigError("the base 'host' is for Linux with glibc, which this machine has not; name an image")
    with tempfile.TemporaryDirectory(prefix="lithops-mini-build-") as directory:
        root = _Root(Path(directory))
        root.add_system()
        root.add_python()
        root.add_tools()
        root.add_libraries()
        root.finish()
        with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as tar:
            tar.add(directory, ".", filter=_anonymous)
    archive.seek(0)


class _Root:
    """The image's root directory while it is filled."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._programs: list[str] = []  # what was copied here and may need libraries, by its path on this machine
        # A distribution's own Python knows that it lies in /usr; any other finds its library wherever it lies.
        self._prefix = Path("/usr" if sys.base_prefix == "/usr" else "/usr/local")

    def add_system(self) -> None:
        for path in ("dev", "etc", "home", "proc", "root", "sys", "usr/bin", "usr/lib", "usr/sbin", "var"):
            (self._root / path).mkdir(parents=True, exist_ok=True)
        for path in ("tmp", "var/tmp"):
            (self._root / path).mkdir()
            (self._root / path).chmod(0o1777)
        for path in ("bin", "sbin", "lib", "lib32", "lib64"):
            if os.path.islink(f"/{path}"):
                (self._root / "usr" / path).mkdir(exist_ok=True)
                (self._root / path).symlink_to(f"usr/{path}")
        etc = self._root / "etc"
        etc.joinpath("passwd").write_text("root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/tmp:/bin/false\n")
        etc.joinpath("group").write_text("root:x:0:\nnogroup:x:65534:\n")
        etc.joinpath("nsswitch.conf").write_text("hosts: files dns\n")
        paths = ssl.get_default_verify_paths()
        for certificates in (paths.cafile, *_CERTIFICATES):
            if certificates and os.path.isfile(certificates):
                self._copy(certificates, _CERTIFICATES[0])
                expected = self._root / paths.openssl_cafile.lstrip("/")
                expected.parent.mkdir(parents=True, exist_ok=True)
                if not expected.exists():
                    expected.symlink_to(_CERTIFICATES[0])
                break
        if os.path.isdir("/usr/share/zoneinfo"):
            twice = shutil.ignore_patterns("posix", "right")
            shutil.copytree("/usr/share/zoneinfo", self._root / "usr/share/zoneinfo", symlinks=True, ignore=twice)

    def add_python(self) -> None:
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        executable, *others = _interpreter()
        self._copy(executable, f"{self._prefix}/bin/{python}")
        (self._root / f"{self._prefix}/bin/python3".lstrip("/")).symlink_to(python)
        (self._root / f"{self._prefix}/bin/python".lstrip("/")).symlink_to(python)
        self._programs += [executable, *others]
        for path in sorted({sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}):
            self._add_library(path, f"{self._prefix}/{os.path.basename(os.path.dirname(path))}/{python}")

    def _add_library(self, library: str, target: str) -> None:
        for parent, directories, files in os.walk(library):
            relative = os.path.relpath(parent, library)
            directories[:] = [each for each in directories if not _LEFT_OUT.search(os.path.join(relative, each))]
            for file in files:
                path = os.path.join(parent, file)
                if not _LEFT_OUT.search(file) and os.path.isfile(path):
                    self._copy(path, os.path.normpath(f"{target}/{relative}/{file}"))
                    if ".so" in file:
                        self._programs.append(path)

    def add_tools(self) -> None:
        for tool in _TOOLS.split():
            if path := shutil.which(tool, path="/usr/bin:/bin"):
                self._copy(path, f"/usr/bin/{tool}")
                if not os.path.exists(self._root / "bin" / tool):
                    self._copy(path, f"/bin/{tool}")
                self._programs.append(path)

    def add_libraries(self) -> None:
        """Copy every shared library of what was copied, to where it is found here."""
        for path in sorted({*_needed(self._programs), *_known_libraries()}):
            if path.startswith(f"{sys.base_prefix}/") and sys.base_prefix != "/usr":
                self._copy(path, f"{self._prefix}/{os.path.relpath(path, sys.base_prefix)}")
            else:
                # The directory may be a link to another; the file's own name is the one that programs ask for.
                self._copy(path, os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path)))

    def finish(self) -> None:
        """Strip, index and compile what was copied."""
        libraries = [path for path in self._root.rglob("*.so*") if not path.is_symlink()]
        if strip := shutil.which("strip"):  # debugging symbols can be half of an interpreter's size
            programs = [path for path in (self._root / "usr").rglob("bin/python3.*") if not path.is_symlink()]
            subprocess.run([strip, "--strip-unneeded", *libraries, *programs], check=False, capture_output=True)
        directories = sorted(
            {f"/{path.parent.relative_to(self._root)}" for path in libraries if "dynload" not in str(path)}
        )
        (self._root / "etc/ld.so.conf").write_text("".join(f"{path}\n" for path in directories))
        ldconfig = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
        if not ldconfig:
            raise ConfigError("the base 'host' needs the program ldconfig, which is not here; name an image")
        subprocess.run([ldconfig, "-r", str(self._root)], check=True, capture_output=True)
        for path in self._root.rglob("*"):
            os.utime(path, (_MODIFIED, _MODIFIED), follow_symlinks=False)  # compiled files know their source by it
        command = [sys.executable, "-m", "compileall", "-q", "-s", str(self._root), "-p", "/", str(self._root)]
        subprocess.run([*command, "-x", "/(ensurepip|pydoc_data)/"], check=True, capture_output=True)

    def _copy(self, source: str, target: str) -> None:
        path = self._root / target.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)
        path.chmod(0o755 if os.access(source, os.X_OK) else 0o644)


def _interpreter() -> list[str]:
    """The interpreter's program, not a virtual environment's link to it, and the library that it may be in."""
    executable = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    name = sysconfig.get_config_var("INSTSONAME") or ""
    library = os.path.join(sysconfig.get_config_var("LIBDIR") or "", name)
    return [executable, *([library] if ".so" in name and os.path.isfile(library) else [])]


def _needed(programs: Iterable[str]) -> Iterator[str]:
    """The shared libraries, and the loader, by which these programs are run here."""
    listing = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        if match := re.match(r"\s+(?:\S+ => )?(/\S+) \(0x", line):
            yield match[1]


def _known_libraries() -> Iterator[str]:
    """Where the loader finds ``_LIBRARIES``: beside the C library that this process uses."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            if match := re.search(r"(/\S*)/libc(?:-[\d.]+)?\.so[.\d]*$", line):
                yield from (f"{match[1]}/{each}" for each in _LIBRARIES if os.path.exists(f"{match[1]}/{each}"))
                return


def _anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mtime = _MODIFIED
    if info.isdir() and not info.mode & 0o1000:
        info.mode = 0o755
    return info
