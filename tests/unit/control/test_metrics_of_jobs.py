"""Progress of each job as Prometheus sees it."""

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from support.api_objects import make_job
from tuningfork.control.metrics import Metrics
from tuningfork.control.store import MemoryStore


def series(*jobs: tuple[str, dict[str, Any] | None]) -> dict[tuple[str, str], float]:
    """(series, job) -> value."""
    store, metrics = MemoryStore(), Metrics()
    for name, progress in jobs:
        job = make_job(name)
        job["metadata"] |= {"namespace": "ml", "uid": name, "resourceVersion": "1"}
        store.put(job | {"status": {"phase": "Training"} | ({"progress": progress} if progress else {})})
    metrics.watch_objects(store, ["FineTuneJob"])
    return {
        (sample.name, sample.labels["job"]): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
        if "job" in sample.labels
    }


def test_a_job_on_its_way() -> None:
    assert series(("a", {"step": 12, "totalSteps": 30, "loss": 1.5})) == {
        ("tuningfork_job_progress_ratio", "a"): 0.4,
        ("tuningfork_job_loss", "a"): 1.5,
    }


def test_a_loss_that_is_no_number_has_no_series() -> None:
    assert series(("a", {"step": 12, "totalSteps": 30})) == {("tuningfork_job_progress_ratio", "a"): 0.4}


def test_a_job_that_reported_nothing_has_no_series() -> None:
    assert series(("a", None), ("b", {"stage": "fetch"})) == {}
