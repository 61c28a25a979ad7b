"""What is told of a service, and of what it is made of, as their statuses."""

from __future__ import annotations

from lithops_mini.emulators.knative.conditions import Condition, condition, written
from lithops_mini.emulators.knative.kinds import Object


def of_configuration(configuration: Object, created: Object, latest: str | None) -> Object:
    """``created``: its newest revision; ``latest``: the newest one that has become ready."""
    name, state = created["metadata"]["name"], condition(created)
    ready = Condition("", state.state)
    if state.state == "False":
        text = f'Revision "{name}" failed with message: {state.message}.'
        ready = Condition("", "False", "RevisionFailed", text)
    conditions = [each for each in written([ready], _conditions(configuration)) if each["type"]]
    told: Object = {"observedGeneration": configuration["metadata"]["generation"], "conditions": conditions}
    told["latestCreatedRevisionName"] = name
    return told if latest is None else {**told, "latestReadyRevisionName": latest}


def of_route(route: Object, configuration: Object, url: str) -> Object:
    metadata = route["metadata"]
    latest = configuration["status"].get("latestReadyRevisionName")
    assigned = Condition("AllTrafficAssigned", "True")
    if latest is None:
        failed = condition(configuration).state == "False"
        how = "does not have any ready Revision" if failed else "is waiting for a Revision to become ready"
        text = f'Configuration "{configuration["metadata"]["name"]}" {how}.'
        assigned = Condition("AllTrafficAssigned", "False" if failed else "Unknown", "RevisionMissing", text)
    ingress = Condition("IngressReady", assigned.state, assigned.reason, assigned.message)
    certificate = Condition("CertificateProvisioned", "True", "TLSNotEnabled", "external-domain-tls is not enabled")
    return {
        "observedGeneration": metadata["generation"],
        "url": url,
        "address": {"url": f"http://{metadata['name']}.{metadata['namespace']}.svc.cluster.local"},
        "conditions": written([assigned, certificate, ingress], _conditions(route)),
        "traffic": [{"latestRevision": True, "percent": 100, "revisionName": latest}] if latest else [],
    }


def of_service(service: Object, configuration: Object, route: Object) -> Object:
    conditions = []
    for name, part in (("ConfigurationsReady", configuration), ("RoutesReady", route)):
        ready = condition(part)
        conditions.append(Condition(name, ready.state, ready.reason, ready.message))
    parts = (
        (route["status"], ("url", "address", "traffic")),
        (configuration["status"], ("latestCreatedRevisionName", "latestReadyRevisionName")),
    )
    told: Object = {name: part[name] for part, names in parts for name in names if part.get(name)}
    told["observedGeneration"] = service["metadata"]["generation"]
    return {**told, "conditions": written(conditions, _conditions(service))}


def _conditions(found: Object) -> list[Object]:
    return list(found.get("status", {}).get("conditions", ()))
