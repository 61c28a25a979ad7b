"""The emulator as a whole: what listens, what it is made of, how it ends."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lithops_mini.emulators.control import OWN, Actions, allow_many_files, control
from lithops_mini.emulators.front import Request, Response
from lithops_mini.emulators.knative import kinds, kubeconfig, logs, status
from lithops_mini.emulators.knative.access import Access
from lithops_mini.emulators.knative.activator import Activator, host_of, is_call
from lithops_mini.emulators.knative.api import Api
from lithops_mini.emulators.knative.asked import Asked
from lithops_mini.emulators.knative.cluster import Cluster
from lithops_mini.emulators.knative.connections import Authority, CuttableFront
from lithops_mini.emulators.knative.controller import Controller
from lithops_mini.emulators.knative.dice import Dice
from lithops_mini.emulators.knative.kinds import Object
from lithops_mini.emulators.knative.machine import Machine
from lithops_mini.emulators.knative.pod_objects import QUEUE_PROXY
from lithops_mini.emulators.knative.settings import Faults, Limits
from lithops_mini.emulators.knative.store import Store
from lithops_mini.emulators.settings import change
from lithops_mini.errors import ConfigError

_RETRY = 0.1


@dataclass(frozen=True)
class Settings:
    """What an emulator is to be. Ports that are 0 are any that are free."""

    port: int = 0  # of the API server
    ingress_port: int = 0
    sandbox: str = "process"
    network: str = "host"  # of containers
    mounts: Sequence[str] = ()  # directories that containers see
    kubeconfig: Path | None = None  # where it is written; None: in a directory that goes with the emulator
    limits: Limits = field(default_factory=Limits)
    faults: Faults = field(default_factory=Faults)


class Emulator:
    """A local Kubernetes with Knative, listening from now on until ``close``, which removes what it has started.

    ``url``: of the API server; ``ingress``: where services are called, and the emulator tells of itself;
    ``kubeconfig``: the file that leads to the API server.
    """

    def __init__(self, given: Settings) -> None:
        self._machine = Machine(given.sandbox, given.network, given.mounts)
        allow_many_files()
        self._directory = Path(tempfile.mkdtemp(prefix="lithops-mini-knative-"))
        self.kubeconfig = given.kubeconfig or self._directory / "kubeconfig"
        self._limits = given.limits
        self._dice = Dice(given.faults)
        self._counting = threading.Lock()
        self._requests: Counter[str] = Counter()
        store = Store(lambda: self._limits.history)
        self._cluster = Cluster(store, self._machine, self._dice, lambda: self._limits)
        self._access = Access(store)
        self._api = Api(store, self._access, self._dice, self._log, self._count)
        self._authority = Authority()
        self._restarting = threading.Lock()
        self._controller = Controller(self._cluster, self._service_url)
        self._activator = Activator(self._cluster, self._controller)
        fronts: list[CuttableFront] = []
        try:
            fronts.append(self._listen(given.ingress_port))
            fronts.append(self._listen_securely(given.port))
        except BaseException:
            for each in fronts:
                each.cut()
            self._end()
            raise
        self._ingress, self._front = fronts
        self.ingress: str = self._ingress.url
        self.url = self._front.url.replace("http:", "https:")
        self._write_kubeconfig()

    @property
    def not_enforced(self) -> tuple[str, ...]:
        """What is otherwise than on a cluster because of what containers are here."""
        return self._machine.not_enforced

    def close(self) -> None:
        self._cluster.closing.set()
        with self._restarting:
            self._front.cut()
        self._ingress.cut()
        self._end()

    def _end(self) -> None:
        self._machine.end()
        self._controller.close()
        self._machine.close()
        shutil.rmtree(self._directory)

    def _listen(self, port: int) -> CuttableFront:
        return _started(port, lambda: CuttableFront(port, self._called))

    def _listen_securely(self, port: int) -> CuttableFront:
        return _started(port, lambda: CuttableFront(port, self._api.answer, self._authority.context))

    def _called(self, request: Request) -> Response:
        """The answer on the port of the ingress."""
        if is_call(request):
            return self._activator.answer(request)
        if request.path.startswith(OWN):
            return self._own(request)
        return Response(404)

    def _service_url(self, name: str, namespace: str) -> str:
        return f"http://{host_of(name, namespace)}:{self._ingress.server_address[1]}"

    def _write_kubeconfig(self) -> None:
        kubeconfig.write(self.kubeconfig, self.url, self._authority.certificate, self._access.token)

    def _log(self, pod: Object, asked: Asked) -> Response:
        metadata, name = pod["metadata"], asked.query.get("container", "")
        names = [each["name"] for each in pod["spec"]["containers"]]
        if not name:
            text = f"a container name must be specified for pod {metadata['name']}, choose one of: [{' '.join(names)}]"
            raise status.bad_request(text)
        if name not in names:
            raise status.bad_request(f"container {name} is not valid for pod {metadata['name']}")
        if name == QUEUE_PROXY:
            return logs.answer(_empty_log(), asked)
        found = next((each for scale in self._controller.scales() if (each := scale.pod(metadata["name"]))), None)
        log = None
        if found is not None:
            log = found.previous_log if asked.flag("previous") else found.log
        if log is None:
            what = "previous terminated container" if asked.flag("previous") else "container"
            raise status.bad_request(f'{what} "{name}" in pod "{metadata["name"]}" not found')
        return logs.answer(log, asked)

    def _count(self, what: str) -> None:
        with self._counting:
            self._requests[what] += 1

    # -- what it tells of itself, and lets itself be told

    def _own(self, request: Request) -> Response:
        own: Actions = {
            ("GET", "faults"): lambda _: self._dice.change({}),
            ("PUT", "faults"): self._dice.change,
            ("PUT", "next"): self._dice.order,
            ("GET", "limits"): lambda _: self._limit({}),
            ("PUT", "limits"): self._limit,
            ("GET", "state"): lambda _: self._state(),
            ("GET", "requests"): lambda _: dict(sorted(self._requests.items())),
            ("DELETE", "requests"): lambda _: self._requests.clear(),
            ("POST", "lose-node"): lambda _: {"pods": sum(each.evict_all() for each in self._controller.scales())},
            ("POST", "restart-api"): self._restart,
            ("POST", "expire-token"): lambda _: self._expire(),
        }
        return control(request, own)

    def _limit(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        self._limits = change(self._limits, changes)
        return asdict(self._limits)

    def _state(self) -> dict[str, int]:
        counts: Counter[str] = Counter({"pods": 0, "ready": 0, "running": 0, "waiting": 0})
        for each in self._controller.scales():
            counts.update(each.counts())
        store = self._cluster.store
        objects = {each.plural: store.count(each) for each in (kinds.SERVICE, kinds.REVISION, kinds.SECRET)}
        totals = {f"total_{name}": count for name, count in sorted(self._cluster.totals.items())}
        return {**objects, **counts, **totals}

    def _expire(self) -> dict[str, str]:
        """No token that was given before is good any more but those of service accounts."""
        self._access.renew()
        self._write_kubeconfig()
        return {"kubeconfig": str(self.kubeconfig)}

    def _restart(self, asked: Mapping[str, Any]) -> dict[str, float]:
        """Cut all connections of the API server, and let it refuse new ones for some seconds."""
        seconds = asked.get("seconds", 1.0)
        if not isinstance(seconds, (int, float)) or seconds < 0:
            raise ConfigError(f"seconds is {seconds!r}, and must be a number not below 0")
        threading.Thread(target=self._be_away, args=(seconds,), name="restart", daemon=True).start()
        return {"seconds": seconds}

    def _be_away(self, seconds: float) -> None:
        with self._restarting:
            if self._cluster.closing.is_set():
                return
            port = int(self._front.server_address[1])
            self._front.cut()
            self._cluster.closing.wait(seconds)
            while True:
                try:
                    self._front = self._listen_securely(port)
                except ConfigError:  # whoever has the port now is asked to leave by nobody: it is tried again
                    if self._cluster.closing.wait(_RETRY):
                        return
                else:
                    return


def _started(port: int, make: Any) -> CuttableFront:
    try:
        front: CuttableFront = make()
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used: {os.strerror(error.errno or 0)}; choose another") from error
    threading.Thread(target=front.serve_forever, name="front", daemon=True).start()
    return front


def _empty_log() -> logs.Log:
    log = logs.Log()
    log.end()
    return log
