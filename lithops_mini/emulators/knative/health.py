"""How a revision is, as its conditions: in the platform's words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lithops_mini.emulators.knative.conditions import Condition, condition
from lithops_mini.emulators.knative.kinds import Object
from lithops_mini.emulators.knative.pod import Pod

_IDLE = Condition("Active", "False", "NoTraffic", "The target is not receiving traffic.", info=True)
_STARTING = Condition(
    "Active",
    "Unknown",
    "Queued",
    "Requests to the target are being buffered as resources are provisioned.",
    info=True,
)


@dataclass(frozen=True)
class Health:
    """What is known of a revision. ``late``: it should have had its first pods by now."""

    pods: Sequence[Pod]
    initialised: bool  # it has had its first pods
    late: bool
    image_trouble: str
    refusal: str  # why it may have no pod

    def conditions(self, revision: Object) -> list[Condition]:
        """``revision``: as it is stored; what is not known otherwise now stays as it was."""
        ready = any(each.ready for each in self.pods)
        active = Condition("Active", "True", info=True)
        if not ready:
            active = _STARTING if self.pods else _IDLE
        healthy, available = condition(revision, "ContainerHealthy"), condition(revision, "ResourcesAvailable")
        if ready and self.initialised:
            healthy, available = Condition("ContainerHealthy", "True"), Condition("ResourcesAvailable", "True")
        elif self.image_trouble:
            healthy = Condition("ContainerHealthy", "False", "ContainerMissing", self.image_trouble)
        elif not self.initialised or self.pods or self.refusal:
            healthy, available = self._troubles(healthy, available)
        return [active, healthy, available]

    def _troubles(self, healthy: Condition, available: Condition) -> tuple[Condition, Condition]:
        """What keeps pods from being ready: the first one speaks for all."""
        deploying = Condition("ContainerHealthy", "Unknown", "Deploying")
        if healthy.reason == "ContainerMissing":  # it is there now
            healthy = deploying
        if healthy.state != "False" and available.state != "False" and not self.initialised:
            healthy, available = deploying, Condition("ResourcesAvailable", "Unknown", "Deploying")
        if self.refusal and not self.pods:
            return healthy, Condition("ResourcesAvailable", "False", "FailedCreate", self.refusal)
        for pod in self.pods[:1]:
            if pod.unschedulable:
                return healthy, Condition("ResourcesAvailable", "False", "Unschedulable", pod.unschedulable)
            if pod.last_end is not None and not pod.ready:
                code, words = pod.last_end
                words = words if code or words else "container exited with no error"
                return Condition(
                    "ContainerHealthy", "False", f"ExitCode{code}", f"Container failed with: {words}"
                ), available
            if pod.trouble and self.late:
                return healthy, Condition("ResourcesAvailable", "False", *pod.trouble)
        if self.late and not self.initialised:
            text = "Initial scale was never achieved"
            return healthy, Condition("ResourcesAvailable", "False", "ProgressDeadlineExceeded", text)
        return healthy, available
