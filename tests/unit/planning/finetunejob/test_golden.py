"""Whole plans, compared with files (see ../golden/README.md)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.jobs import CPU_NODE, JobWorld, make_job, preparing, training
from tuningfork.api import Settings
from tuningfork.api.artifacts import PreparedData, Result
from tuningfork.api.jobfile import ProgressReport
from tuningfork.planning.finetunejob import Observed, plan_finetunejob
from tuningfork.planning.finetunejob.observed import parse_time
from tuningfork.planning.plan import Plan
from tuningfork.planning.storage import StoredRun
from tuningfork.sizing import GIB, Offer

GOLDEN = Path(__file__).parents[1] / "golden"
L40S = Offer("nvidia-l40s", 46 * GIB, ("NVIDIA-L40S",))

CASES: dict[str, Callable[[], JobWorld]] = {
    "created": make_job,
    "prepared-trains-on-cpu": lambda: preparing().finished(0).prepared(),
    "prepared-trains-on-gpu": lambda: make_job().spec(compute__accelerators=[]).cluster_has(L40S, *CPU_NODE).prepared(),
    "training-reports-progress": lambda: (
        training().pod("Running").reports("train", 3, loss=2.5, tokens_per_second=120.0, eta_seconds=40)
    ),
    "failed-once-waits": lambda: (
        training().at(30).finished(40, says="ValueError: no", reason="Failed").prepared().at(31)
    ),
    "accepted-registers": lambda: training().finished(0).with_result().version_exists("support-v7"),
    "rejected-by-gate": lambda: training().finished(10, says="gate", reason="GateFailed").with_result(accepted=False),
    "suspended-stops-the-pod": lambda: training().pod("Running").step().spec(suspend=True).at(5),
}


@pytest.mark.parametrize("case", CASES)
def test_the_whole_plan_is_as_written(case: str, update_golden: bool) -> None:
    folder, world = GOLDEN / case, CASES[case]()
    seen = _dump_observed(world.observed(), world.clock())
    if update_golden:
        folder.mkdir(exist_ok=True)
        (folder / "in.yaml").write_text(_yaml(seen))
        (folder / "out.yaml").write_text(_yaml(_dump_plan(world.plan())))
    given = yaml.safe_load((folder / "in.yaml").read_text())
    assert given == seen, "the builders make another world than in.yaml"
    plan = plan_finetunejob(_load_observed(given), parse_time(given["now"]))
    assert _dump_plan(plan) == yaml.safe_load((folder / "out.yaml").read_text()), plan.why


def test_every_golden_folder_has_a_case() -> None:
    assert sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir()) == sorted(CASES)


def _dump_observed(observed: Observed, now: str) -> dict[str, Any]:
    stored = observed.stored
    assert isinstance(stored, StoredRun), "errors are covered by the table"
    dumped = {
        "now": now,
        "parent": observed.parent,
        "settings": observed.settings.dump(),
        "jobs": list(observed.jobs),
        "pods": list(observed.pods),
        "configMaps": list(observed.config_maps),
        "versions": list(observed.versions),
        "offers": [[o.accelerator, o.usable_bytes, list(o.products)] for o in observed.offers],
        "prepared": stored.prepared.dump() if stored.prepared else None,
        "result": stored.result.dump() if stored.result else None,
        "progress": observed.progress.dump() if observed.progress else None,
        "intakeCa": observed.intake_ca,
    }
    return yaml.safe_load(_yaml(dumped))  # type: ignore[no-any-return]


def _load_observed(given: dict[str, Any]) -> Observed:
    progress = ProgressReport.model_validate(given["progress"]) if given["progress"] else None
    return Observed(
        parent=given["parent"],
        settings=Settings.model_validate(given["settings"]),
        jobs=tuple(given["jobs"]),
        pods=tuple(given["pods"]),
        config_maps=tuple(given["configMaps"]),
        versions=tuple(given["versions"]),
        offers=tuple(Offer(name, size, tuple(products)) for name, size, products in given["offers"]),
        stored=StoredRun(
            PreparedData.model_validate(given["prepared"]) if given["prepared"] else None,
            Result.model_validate(given["result"]) if given["result"] else None,
        ),
        progress=progress,
        progress_at=parse_time(given["now"]) if progress else None,
        intake_ca=given["intakeCa"],
    )


def _dump_plan(plan: Plan) -> dict[str, Any]:
    dumped = {
        "why": list(plan.why),
        "delete": [ref._asdict() for ref in plan.delete],
        "create": list(plan.create),
        "apply": list(plan.apply),
        "status": plan.status,
        "events": [event._asdict() for event in plan.events],
        "requeueAfter": plan.requeue_after,
    }
    return yaml.safe_load(_yaml(dumped))  # type: ignore[no-any-return]


class _Dumper(yaml.SafeDumper):
    """Without anchors: a reader should not have to follow references."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=130)
