"""Which objects of which resources the API server is asked for."""

from datetime import datetime
from typing import Any

import pytest

from tuningfork.control.controller import Key, Resource, Watched
from tuningfork.control.edge import selectors_of
from tuningfork.planning.plan import Manifest, Plan

JOBS = Resource("tuningfork.dev/v1alpha1", "FineTuneJob", "finetunejobs")
ROLLOUTS = Resource("tuningfork.dev/v1alpha1", "Rollout", "rollouts")
PODS = Resource("v1", "Pod", "pods")
COMPONENT = "tuningfork.dev/component"


def no_keys(obj: Manifest) -> list[Key]:
    return []


class Controller:
    def __init__(self, resource: Resource, *watched: tuple[Resource, str | None]) -> None:
        self.resource = resource
        self.watched: tuple[Watched, ...] = tuple(Watched(r, label, no_keys) for r, label in watched)

    def observe(self, parent: Manifest) -> Any: ...

    def plan(self, observed: Any, now: datetime) -> Plan:
        return Plan()


@pytest.mark.parametrize(
    ("jobs", "rollouts", "expected"),
    [
        pytest.param([], [], {}, id="parents only, all of them"),
        pytest.param([(PODS, "job")], [], {PODS: "job"}, id="one label: the API server selects by it"),
        pytest.param([(PODS, "job")], [(PODS, "job")], {PODS: "job"}, id="the same label twice"),
        pytest.param([(PODS, "job")], [(PODS, "rollout")], {PODS: COMPONENT}, id="two labels: what all of ours have"),
        pytest.param([(PODS, "job")], [(PODS, None)], {PODS: None}, id="somebody needs all of them"),
        pytest.param([(ROLLOUTS, "job")], [], {}, id="a parent that another watches by a label: all of them"),
    ],
)
def test_selectors(jobs: Any, rollouts: Any, expected: dict[Resource, str | None]) -> None:
    found = selectors_of([Controller(JOBS, *jobs), Controller(ROLLOUTS, *rollouts)])
    assert found == {JOBS: None, ROLLOUTS: None} | expected
