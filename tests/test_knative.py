"""The knative backend on the local Knative, which checks all it is sent by the published schemas."""

from __future__ import annotations

import os
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from engines import Engine
from knative_cluster import BUCKET, Local, start_knative
from requests.exceptions import ChunkedEncodingError, ConnectTimeout, ReadTimeout, SSLError
from test_examples import DATA, nycflights, run
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError, NameResolutionError, NewConnectionError, ProtocolError

import lithops_mini as lm
from lithops_mini.cli.app import app
from lithops_mini.compute import knative_errors
from lithops_mini.compute.base import Activation, ComputeBackend
from lithops_mini.compute.knative import KnativeCompute
from lithops_mini.compute.knative_options import KnativeOptions
from lithops_mini.errors import ConfigError, InputError, InvocationError, Reason
from lithops_mini.executor import FunctionExecutor
from lithops_mini.runtimes import api_server, knative_ready, knative_schema, knative_service
from lithops_mini.runtimes.cluster import Cluster
from lithops_mini.runtimes.knative_image import ServiceImages
from lithops_mini.runtimes.knative_service import About, Lent, Setup, Size
from lithops_mini.runtimes.recipe import Recipe
from lithops_mini.storage.base import WorkerNeeds
from lithops_mini.testing.compute import LONG, ComputeContract, Trace, _beating, _until
from lithops_mini.testing.messages import Messages, outcomes
from lithops_mini.verify import verify

__all__ = ["nycflights"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory, moto: Engine) -> Iterator[Local]:
    with start_knative(tmp_path_factory.mktemp("knative"), moto, "--idle", "5", "--back-off", "0.5") as local:
        local.cluster()  # the official client keeps a kubeconfig's certificates in files until the process ends
        yield local


class TestContract(ComputeContract):
    many: ClassVar[int] = 20

    @pytest.fixture
    def executor_settings(self, local: Local, request: pytest.FixtureRequest) -> dict[str, Any]:
        # One service for all tests but for that to which a first call must be cold.
        cold = "test_a_worker_is_used_again"
        environment = {"TEST": cold if request.node.name == cold else "contract"}
        return local.executor(max_workers=2, max_scale=2, max_time=60, environment=environment)

    def _see_the_end(self, backend: ComputeBackend, trace: Trace, closed: float) -> None:
        _until(trace.is_still, "what ran has noticed that nobody waits")
        assert time.monotonic() - closed < self.promptly

    @pytest.mark.usefixtures("stoppable")
    def test_cancelled_calls_stop_or_never_start(
        self, executor: FunctionExecutor, backend: ComputeBackend, trace: Trace
    ) -> None:
        """Their connections are closed, and what runs has soon noticed that."""
        running = backend.concurrency
        futures = executor.map(_beating(trace.prefix), range(running + 3), chunksize=1)
        _until(lambda: trace.beating() == running, "they run")
        began = time.monotonic()
        for future in reversed(futures):
            assert future.cancel()
        assert executor.get_result(executor.map(abs, [-1, -2])) == [1, 2]
        self._see_the_end(backend, trace, began)
        assert trace.beating() == running

    @pytest.mark.usefixtures("stoppable")
    def test_a_running_call_is_stopped(self, backend: ComputeBackend, messages: Messages, trace: Trace) -> None:
        """By closing its connection: what is known of the others has come before, of the call itself nothing comes."""
        known: list[bytes] = []
        sent: list[Activation] = []
        payload = messages.payload(_beating(trace.prefix, at=1), range(3), inject=["storage"])
        failures: list[InvocationError] = []

        def send() -> None:
            try:
                while not trace.left("beat/"):  # a pod that has to begin with its storage gives back what is behind
                    known.clear()
                    sent.append(Activation(known.append))
                    backend.invoke(payload, sent[-1])
            except InvocationError as error:
                failures.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        _until(lambda: trace.left("beat/") or failures, "the call runs")
        assert not failures, failures
        began = time.monotonic()
        sent[-1].stop(frozenset((1,)))
        thread.join(LONG)
        assert time.monotonic() - began < self.promptly
        assert (failures[0].reason, failures[0].retryable) == (Reason.UNAVAILABLE, True)
        assert sorted(each.call for part in known for each in outcomes(part)) == [0, 2]
        _until(trace.is_still, "it has ended")
        assert messages.values(backend.invoke(messages.payload(abs, [-1, -2]), Activation())) == [1, 2]


# ---------------------------------------------------------------- services


@pytest.fixture
def own(local: Local) -> dict[str, Any]:
    """Arguments for an executor with services of its own."""
    return local.executor(environment={"TEST": os.urandom(4).hex()})


def services_of(local: Local, test: str) -> dict[str, Any]:
    """The services that have the variable of a test, by name."""
    found = local.cluster().services()
    return {
        each["metadata"]["name"]: each
        for each in found
        if {"name": "TEST", "value": test} in each["spec"]["template"]["spec"]["containers"][0]["env"]
    }


def test_a_service_and_what_is_in_it(local, own):
    """It is made, used by others as it is, changed in place, and made again when somebody has deleted it."""
    test = own["environment"]["TEST"]

    def credentials():
        return {name: value for name, value in os.environ.items() if "SECRET" in name or name == "LITHOPS_MINI_KEY"}

    with lm.function_executor(**own) as executor:
        futures = executor.map(abs, range(-200, 0))
        assert executor.get_result(futures) == list(range(200, 0, -1))
        assert {(each.stats.storage_puts, each.stats.storage_gets) for each in futures} == {(0, 0)}
        assert executor.get_result(executor.map_reduce(lambda x: x, range(100), sum)) == sum(range(100))
        given = executor.get_result(executor.submit(credentials))
    assert given == {"LITHOPS_MINI_AWS_S3_SECRET_ACCESS_KEY": own["secret_access_key"]}
    (service,) = services_of(local, test).values()
    assert service["metadata"]["generation"] == 1
    assert own["secret_access_key"] not in str(service)
    secret = local.cluster().find_secret(service["metadata"]["name"])
    lent = {name: b64decode(value).decode() for name, value in secret["data"].items()}
    assert lent["LITHOPS_MINI_AWS_S3_SECRET_ACCESS_KEY"] == own["secret_access_key"]
    assert secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "lithops-mini"
    with lm.function_executor(**own) as executor:
        assert executor.get_result(executor.map(abs, [-1, -2], runtime_memory=256)) == [1, 2]
    found = services_of(local, test)
    assert {each["metadata"]["generation"] for each in found.values()} == {1}
    limits = {
        name.split("-")[3]: each["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]
        for name, each in found.items()
    }
    assert limits == {"2048": "2112Mi", "256": "320Mi"}
    assert len({each["metadata"]["labels"]["lithops-mini/runtime"] for each in found.values()}) == 1
    with lm.function_executor(**{**own, "max_scale": 9}) as executor:
        assert executor.get_result(executor.submit(abs, -1)) == 1
        changed = services_of(local, test)[service["metadata"]["name"]]
        annotations = changed["spec"]["template"]["metadata"]["annotations"]
        assert annotations["autoscaling.knative.dev/max-scale"] == "9"
        assert changed["metadata"]["generation"] == 2
        executor._compute.runtimes("").delete(service["metadata"]["labels"]["lithops-mini/runtime"])
        assert services_of(local, test) == {}
        assert executor.get_result(executor.submit(abs, -2)) == 2


def test_the_profile_that_the_emulator_writes_is_enough(local):
    """Results that do not fit into messages go through files, which pods see there."""
    with lm.function_executor(config_file=str(local.profile), progress=False) as executor:
        values = executor.get_result(executor.map(lambda size: b"x" * size, [6 << 20, 1]))
    assert [len(each) for each in values] == [6 << 20, 1]


def test_all_that_is_promised(own):
    verdicts = list(verify(**own))
    assert [(each.name, each.reason) for each in verdicts if each.outcome == "failed"] == []
    assert [each.name for each in verdicts if each.outcome == "skipped"] == ["composition"]


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("nycflights")
def test_the_demo(local, own, tmp_path):
    (tmp_path / "knative.yaml").write_text(yaml.safe_dump({"profiles": {"knative": profile(local, own)}}))
    arguments = ("--cache", str(DATA), "--config", "knative.yaml", "--bucket", "flights", "--chunk-size", "3MiB")
    printed = run(tmp_path, "nycflights.py", *arguments)
    assert printed.count("Checked: ") == 2
    assert "WRONG" not in printed
    assert "backend knative" in printed


def profile(local: Local, own: dict[str, Any]) -> dict[str, Any]:
    """Of a configuration file."""
    names = ("environment", "image", "max_workers")
    aws = {name: own[name] for name in ("endpoint_url", "region", "access_key_id", "secret_access_key")}
    knative = {**local.settings, **{name: own[name] for name in names}}
    return {"backend": "knative", "storage": "aws_s3", "storage_bucket": BUCKET, "aws": aws, "knative": knative}


def test_credentials_that_were_found_are_replaced_when_they_are_others(local, own, messages):
    def read(name):
        return os.environ.get(name)

    for value in ("first", "second"):
        backend = made(own)
        try:
            backend.deploy(WorkerNeeds(found=lambda: {"LM_TEST": value}))
            _until(
                lambda: messages.values(backend.invoke(messages.payload(read, ["LM_TEST"]), Activation())) == [value],
                value,
            )
        finally:
            backend.close()
    (service,) = services_of(local, own["environment"]["TEST"]).values()
    assert service["metadata"]["generation"] == 2


def made(settings: dict[str, Any]) -> KnativeCompute:
    from lithops_mini.config import load

    return KnativeCompute(load(**settings).compute_options)


@pytest.fixture
def messages(own) -> Messages:
    from lithops_mini import registry
    from lithops_mini.config import load

    config = load(**own)
    storage = registry.find("storage", config.storage)(config.storage_options)
    storage.create_bucket(config.job.storage_bucket)
    return Messages(config, storage)


def test_a_pod_reaches_its_cluster_by_what_it_has(local, tmp_path, monkeypatch):
    from kubernetes.config import incluster_config

    found = yaml.safe_load(Path(local.settings["kubeconfig"]).read_text())
    server = urlsplit(found["clusters"][0]["cluster"]["server"])
    files = {
        "token": found["users"][0]["user"]["token"],
        "ca.crt": b64decode(found["clusters"][0]["cluster"]["certificate-authority-data"]).decode(),
        "namespace": "default",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(server.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(api_server, "_OWN_NAMESPACE", str(tmp_path / "namespace"))
    reached = Cluster()
    assert reached.namespace == "default"
    assert isinstance(reached.services(), list)
    assert reached.server == server.geturl()


def test_a_context_is_a_cluster_and_a_namespace(local, tmp_path):
    found = yaml.safe_load(Path(local.settings["kubeconfig"]).read_text())
    other = {"name": "other", "context": {**found["contexts"][0]["context"], "namespace": "kube-system"}}
    (tmp_path / "config").write_text(yaml.safe_dump({**found, "contexts": [*found["contexts"], other]}))
    for context, namespace, expected in ((None, None, "default"), ("other", None, "kube-system"), ("other", "a", "a")):
        assert Cluster(str(tmp_path / "config"), context, namespace).namespace == expected
    with pytest.raises(ConfigError, match=r"knative\.context"):
        Cluster(str(tmp_path / "config"), "nobody")


def test_what_the_server_says_is_an_error_with_a_way_out(local, tmp_path):
    found = yaml.safe_load(Path(local.settings["kubeconfig"]).read_text())
    found["users"][0]["user"]["token"] = "nobody's"
    (tmp_path / "config").write_text(yaml.safe_dump(found))
    with pytest.raises(ConfigError, match=r"cannot list services .*log in to the cluster again"):
        Cluster(str(tmp_path / "config")).services()
    del found["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "config").write_text(yaml.safe_dump(found))
    with pytest.raises(ConfigError, match=r"knative\.ca_bundle"):
        Cluster(str(tmp_path / "config")).services()


def test_an_own_authority_may_be_named_beside_the_kubeconfig(local, tmp_path):
    found = yaml.safe_load(Path(local.settings["kubeconfig"]).read_text())
    certificate = b64decode(found["clusters"][0]["cluster"].pop("certificate-authority-data"))
    (tmp_path / "ca.pem").write_bytes(certificate)
    (tmp_path / "config").write_text(yaml.safe_dump(found))
    assert isinstance(Cluster(str(tmp_path / "config"), ca_bundle=str(tmp_path / "ca.pem")).services(), list)


def test_a_timeout_over_the_services_is_refused_before_anything_runs(own):
    with lm.function_executor(**{**own, "max_time": 20}) as executor:
        for submit in (executor.map, executor.call_async):
            with pytest.raises(
                InputError, match=r"timeout is 21 s, and a call may run for 20 s: raise knative\.max_time"
            ):
                submit(abs, [1], timeout=21)
        assert executor.get_result(executor.map(abs, [1], timeout=20)) == [1]
    with lm.function_executor(**{**own, "max_time": 20, "timeout": 30}) as executor, pytest.raises(InputError):
        executor.submit(abs, 1)


def test_a_call_ends_with_the_time_of_its_service(own):
    with lm.function_executor(**{**own, "max_time": 2, "retries": 2}) as executor:
        executor.get_result(executor.submit(abs, -1))
        with pytest.raises(lm.errors.CallTimeout, match="time of its worker was over"):
            executor.get_result(executor.submit(time.sleep, 60))


def test_messages_that_nobody_signed_are_refused(local, own):
    with lm.function_executor(**own) as executor:
        executor.get_result(executor.submit(abs, -1))
        (there,) = executor._compute._sizes.there.values()
        url, headers = executor._compute._way(there)
        answer = requests.post(url, b"a message", headers=headers, timeout=60)
    assert answer.status_code == 403
    assert "not signed" in answer.json()["text"]


# ---------------------------------------------------------------- why a service is not ready, and who may make it


def test_a_service_that_the_clusters_schema_does_not_permit_is_not_sent(local, own):
    from lithops_mini.config import load

    before = local.own("state")
    backend = KnativeCompute(replace(load(**own).compute_options, node_selector={"disk": 5}))  # config files refuse it
    with pytest.raises(
        ConfigError, match=r"permits: spec\.template\.spec\.nodeSelector\.disk: 5 is not of type 'string'"
    ):
        backend.deploy(WorkerNeeds())
    backend.close()
    assert local.own("state") == before
    published = local.cluster().schemas("serving.knative.dev", "v1")
    service = {"apiVersion": "serving.knative.dev/v1", "kind": "Service", "metadata": {"name": "x"}}
    knative_schema.check(published, service)
    with pytest.raises(ConfigError, match=r"permits: spec\.tmplate: there is no such field"):
        knative_schema.check(published, {**service, "spec": {"tmplate": {}}})


def test_what_a_webhook_does_not_like_is_said_and_nothing_is_left(local, own):
    secrets = local.own("state")["secrets"]
    with pytest.raises(ConfigError, match=r"cannot create the service .*denied the request: .*timeoutSeconds"):
        lm.function_executor(**{**own, "max_time": 571})
    assert services_of(local, own["environment"]["TEST"]) == {}
    assert local.own("state")["secrets"] == secrets


@contextmanager
def no_pods(local: Local) -> Iterator[None]:
    """A quota that permits none."""
    local.own("limits", "PUT", pods=0)
    try:
        yield
    finally:
        local.own("limits", "PUT", pods=100)


def test_a_quota_is_said(local, own):
    with no_pods(local), pytest.raises(ConfigError, match=r"is not ready|within") as caught:
        lm.function_executor(**{**own, "start_timeout": 5})
    assert "exceeded quota: pods" in str(caught.value)
    with lm.function_executor(**own) as executor:  # what has failed is tried again
        assert executor.get_result(executor.submit(abs, -1)) == 1


def rules() -> list[dict[str, Any]]:
    directory = Path(__file__).resolve().parent.parent / "runtimes" / "knative"
    role = next(each for each in yaml.safe_load_all((directory / "access.yaml").read_text()) if each["kind"] == "Role")
    found: list[dict[str, Any]] = role["rules"]
    return found


@contextmanager
def account(local: Local, directory: Path, allowed: list[dict[str, Any]]) -> Iterator[str]:
    """The kubeconfig of a service account that may do what these rules say."""
    from kubernetes import client, config

    name = f"account-{os.urandom(4).hex()}"
    config.load_kube_config(
        local.settings["kubeconfig"], client_configuration=(administrator := client.Configuration())
    )
    with client.ApiClient(administrator) as api:
        metadata = {"name": name, "namespace": "default"}
        core, access = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
        core.create_namespaced_service_account("default", {"metadata": metadata})
        access.create_namespaced_role("default", {"metadata": metadata, "rules": allowed})
        bound = {
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
        }
        access.create_namespaced_role_binding("default", bound)
        token = core.create_namespaced_service_account_token(name, "default", {"spec": {"expirationSeconds": 3600}})
    document = yaml.safe_load(Path(local.settings["kubeconfig"]).read_text())
    document["users"][0]["user"] = {"token": token.status.token}
    file = directory / f"{name}.kubeconfig"
    file.write_text(yaml.safe_dump(document))
    yield str(file)


def use(settings: dict[str, Any], kubeconfig: str) -> None:
    """All that the role is for."""
    for scale in (3, 4):
        with lm.function_executor(**{**settings, "kubeconfig": kubeconfig, "max_scale": scale}) as executor:
            assert executor.get_result(executor.submit(abs, -1)) == 1
    backend = made({**settings, "kubeconfig": kubeconfig, "max_scale": 5})
    try:
        for value in ("first", "second"):
            other = made({**settings, "kubeconfig": kubeconfig})
            other.deploy(WorkerNeeds(found=lambda value=value: {"LM_TEST": value}))
            other.close()
        runtimes = backend.runtimes("")
        runtimes.delete(runtimes.name(runtimes.recipe(())))
    finally:
        backend.close()


def test_the_role_of_the_docs_is_what_is_needed(local, own, tmp_path):
    """Who has it can do all there is to do, and asks for everything that is in it; and for nothing else."""
    with account(local, tmp_path, rules()) as kubeconfig:
        local.own("requests", "DELETE")
        use(own, kubeconfig)
        with no_pods(local), pytest.raises(ConfigError, match="exceeded quota"):
            lm.function_executor(**{**own, "kubeconfig": kubeconfig, "max_scale": 6, "start_timeout": 1})
        with lm.function_executor(**{**own, "kubeconfig": kubeconfig, "carrier": "event"}) as executor:
            executor.get_result(executor.submit(time.sleep, 1))
            assert list(executor._compute.read_log("none", 0, time.time() - 60)) == []
    asked = {what for what, count in local.own("requests").items() if count}
    assert asked == {f"{verb} {each}" for rule in rules() for each in rule["resources"] for verb in rule["verbs"]}


def test_a_right_that_is_missing_is_named(local, own, tmp_path):
    less = [{**rule, "verbs": [each for each in rule["verbs"] if each != "create"]} for rule in rules()]
    no_logs = [each for each in rules() if each["resources"] != ["pods/log"]]
    with account(local, tmp_path, no_logs) as kubeconfig, lm.function_executor(**own) as executor:
        executor.get_result(executor.submit(abs, -1))
        (pod, *_) = next(iter(local.cluster().all_pods()))[1]
        with pytest.raises(ConfigError, match=r"cannot get resource .*pods/log"):
            Cluster(kubeconfig).log(pod)
        assert local.cluster().log(pod, previous=True) == local.cluster().log("nobody") == []
    missing = pytest.raises(ConfigError, match=r"cannot create resource .*secrets.*docs/backends/knative.md")
    with account(local, tmp_path, less) as kubeconfig, missing:
        use(own, kubeconfig)


# ---------------------------------------------------------------- runtimes


def test_runtime_commands(local, own, tmp_path, monkeypatch, capsys):
    (tmp_path / "lithops_mini.yaml").write_text(yaml.safe_dump({"profiles": {"only": profile(local, own)}}))
    monkeypatch.chdir(tmp_path)

    def command(*arguments: str) -> str:
        app.main(arguments, prog_name="lithops-mini", standalone_mode=False)
        return capsys.readouterr().out

    with lm.function_executor(progress=False) as executor:
        executor.get_result(executor.submit(abs, -1))
        runtimes = executor._compute.runtimes(BUCKET)
        name = runtimes.name(runtimes.recipe(("boto3",)))
    assert name in command("runtime", "list")
    assert "current" in command("runtime", "info", name)
    assert command("runtime", "delete", name) == f"Deleted {name}\n"
    assert name not in command("runtime", "list")
    assert services_of(local, own["environment"]["TEST"]) == {}
    backend = made(own)
    with pytest.raises(ConfigError, match="there is no runtime"):
        backend.runtimes("").delete(name)
    backend.close()


# ---------------------------------------------------------------- what errors mean


def answer(status: int, body: str = "", **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = status, body.encode()
    response.headers.update(headers)
    return response


@pytest.mark.parametrize(
    ("given", "took", "reason", "retryable", "text"),
    [
        (answer(404), 1, Reason.UNAVAILABLE, True, "no way to it yet"),
        (answer(429, "slow down"), 1, Reason.THROTTLED, True, "slow down"),
        (answer(503, "no healthy upstream"), 1, Reason.UNAVAILABLE, True, "no pod"),
        (answer(503, "activator overload"), 1, Reason.THROTTLED, True, "as much to do"),
        (answer(503, "pending request queue full"), 1, Reason.THROTTLED, True, "as much to do"),
        (answer(502, "<html>Bad Gateway</html>"), 1, Reason.DIED, True, "502, Bad Gateway"),
        (answer(504, "request timeout"), 60, Reason.TIMEOUT, True, "before it answered"),
        (answer(504), 15, Reason.TIMEOUT, True, "gave up after 15 s, and the service may take 60"),
        (answer(500, "?"), 1, Reason.DIED, True, "lost"),
        (answer(413), 1, Reason.REFUSED, False, "larger than"),
        (answer(302, Location="https://x"), 1, Reason.REFUSED, False, "https://x"),
        (answer(403, "RBAC: access denied"), 1, Reason.REFUSED, False, "RBAC"),
        (answer(200, "welcome"), 1, Reason.REFUSED, False, "no worker"),
        (answer(422, '{"text": "t", "reason": "died", "retryable": true}'), 1, Reason.DIED, True, "t"),
        (answer(403, '{"text": "t", "reason": "refused", "retryable": false}'), 1, Reason.UNAVAILABLE, True, "t"),
    ],
)
def test_answers_without_a_reply(given, took, reason, retryable, text):
    found = knative_errors.refused(given, "s", took, 60)
    assert (found.reason, found.retryable) == (reason, retryable)
    assert text in str(found)


POOL = HTTPConnectionPool("localhost", 1)


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        (
            requests.ConnectionError(MaxRetryError(POOL, "/", NewConnectionError(None, "refused"))),
            Reason.UNAVAILABLE,
            True,
        ),
        (
            requests.ConnectionError(MaxRetryError(POOL, "/", NameResolutionError("h", None, OSError()))),
            Reason.UNAVAILABLE,
            True,
        ),
        (ConnectTimeout(), Reason.UNAVAILABLE, True),
        (requests.ConnectionError(ProtocolError("Connection aborted.")), Reason.DIED, True),
        (ProtocolError("Connection broken"), Reason.DIED, True),
        (ReadTimeout(), Reason.DIED, True),
        (ChunkedEncodingError(), Reason.DIED, True),
        (SSLError("CERTIFICATE_VERIFY_FAILED"), Reason.REFUSED, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_ways_that_break(error, reason, retryable):
    found = knative_errors.not_carried(error, "s", "http://x")
    assert (found.reason, found.retryable) == (reason, retryable)
    assert "the service s" in str(found)


def pod(reason: str, finished: str) -> dict[str, Any]:
    ended = {"terminated": {"reason": reason, "exitCode": 137, "finishedAt": finished}}
    return {
        "metadata": {"name": "p"},
        "status": {"containerStatuses": [{"name": "c", "state": {"running": {}}, "lastState": ended}]},
    }


def test_how_a_container_has_ended():
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    end = knative_ready.end_since(pod("OOMKilled", stamp), now - 2)
    assert end == knative_ready.End("p", "OOMKilled", 137, "")
    assert end.is_out_of_memory
    assert not knative_ready.end_since(pod("Error", stamp), now - 2).is_out_of_memory
    assert knative_ready.end_since(pod("OOMKilled", stamp), now + 60) is None
    assert knative_ready.end_since({}, 0) is knative_ready.end_since({"status": {}}, 0) is None


# ---------------------------------------------------------------- without a cluster


def test_options_that_contradict_each_other():
    for wrong in ({"min_scale": 5, "max_scale": 4}, {"cpu": 2.0, "cpu_limit": 1.0}, {"environment": {"PORT": "1"}}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            KnativeOptions(**wrong)


def test_no_cluster_is_an_error_that_says_what_to_set(tmp_path):
    with pytest.raises(ConfigError, match=r"leads to no cluster .*knative\.kubeconfig"):
        KnativeCompute(KnativeOptions(kubeconfig=str(tmp_path / "none")))


def test_images_have_a_place():
    with pytest.raises(ConfigError, match=r"knative\.image is not set"):
        ServiceImages(None, push=True)
    recipe = Recipe()
    tag = f"{recipe.python}-{recipe.digest[:12]}"
    assert ServiceImages(None, push=False).name(recipe) == f"dev.local/lithops-mini:{tag}"
    assert ServiceImages("host:5000/team/x", push=True).name(recipe) == f"host:5000/team/x:{tag}"
    for given in ("host:5000/team/x:1", "x@sha256:0123"):
        images = ServiceImages(given, push=True)
        assert images.is_given
        assert images.name(recipe) == given


def test_the_name_of_a_service_tells_what_is_in_it():
    setup = Setup(max_time=60)
    name = knative_service.runtime_name(Recipe(), "i:1", setup)
    assert name == knative_service.runtime_name(Recipe(), "i:1", Setup(max_time=60, max_scale=7, min_scale=1))
    others = {
        knative_service.runtime_name(Recipe(), "i:2", setup),
        knative_service.runtime_name(Recipe(python="3.99"), "i:1", setup),
        *(
            knative_service.runtime_name(Recipe(), "i:1", Setup(**{"max_time": 60, **other}))
            for other in ({"max_time": 61}, {"cpu": 2.0}, {"environment": {"A": "b"}}, {"cluster_local": True})
        ),
    }
    assert len(others | {name}) == 7
    lent = [Lent(), Lent(given={"A": "1"}), Lent(given={"A": "2"}), Lent(found={"A": "1"})]
    names = [Size(name, 2048, each).name for each in lent]
    assert len(set(names)) == 4
    assert all(len(each) <= 63 for each in names)
    assert names[3] == Size(name, 2048, Lent(found={"A": "2"})).name
    assert names[0] == f"{name}-2048"


def test_the_manifests_are_what_is_applied():
    directory = Path(__file__).resolve().parent.parent / "runtimes" / "knative"
    secret, service = yaml.safe_load_all((directory / "service.yaml").read_text())
    size = Size("lithops-mini-0123456789ab", 2048, Lent())
    image = service["spec"]["template"]["spec"]["containers"][0]["image"]
    setup = Setup(max_time=KnativeOptions().max_time, cpu=KnativeOptions().cpu, max_scale=KnativeOptions().max_scale)
    made = knative_service.service(size, "lithops-mini", image, setup, About("", "", "", "", ""))
    made["metadata"].pop("annotations")
    made["spec"]["template"]["metadata"]["annotations"].pop("lithops-mini/credentials")
    assert service == made
    ours = knative_service.secret(size, "lithops-mini", b"")
    assert secret.pop("stringData").keys() == ours.pop("data").keys()
    assert secret == ours
    kinds = [each["kind"] for each in yaml.safe_load_all((directory / "access.yaml").read_text())]
    assert kinds == ["Namespace", "ServiceAccount", "Role", "RoleBinding"]
