"""The store: three writers in any order, and lookups by label."""

from typing import Any

import pytest

from tuningfork.control.store import MemoryStore

LABEL = "tuningfork.dev/job"


def pod(
    name: str, version: int, *, uid: str = "", namespace: str = "ml", job: str = "a", **more: Any
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": uid or name, "resourceVersion": str(version)}
    return {"kind": "Pod", "metadata": metadata | {"labels": {LABEL: job, "app": job}}} | more


def held(store: MemoryStore) -> list[tuple[str, int]]:
    return [(obj["metadata"]["name"], int(obj["metadata"]["resourceVersion"])) for obj in store.list("Pod")]


def test_the_newest_version_wins_whoever_brings_it() -> None:
    store = MemoryStore()
    assert store.put(pod("a", 9))
    assert store.put(pod("a", 10)), "compared as numbers: as texts 10 would be older than 9"
    assert not store.put(pod("a", 9)), "a watch that lags behind our own write"
    assert not store.put(pod("a", 10)), "the watch's view of what we wrote is no news"
    assert held(store) == [("a", 10)]


def test_what_was_deleted_does_not_come_back_with_a_late_answer() -> None:
    store = MemoryStore()
    store.put(pod("a", 1))
    assert store.remove(pod("a", 3))
    assert not store.put(pod("a", 2))
    assert held(store) == []


def test_a_deletion_spares_the_successor_of_the_same_name() -> None:
    store = MemoryStore()
    store.put(pod("a", 1, uid="first"))
    store.put(pod("a", 5, uid="second"))
    assert not store.remove(pod("a", 4, uid="first"))
    assert held(store) == [("a", 5)]


@pytest.mark.parametrize(
    ("namespace", "labels", "names"),
    [
        pytest.param(None, None, ["w", "x", "y", "z"], id="everything, by namespace and name"),
        pytest.param("ml", None, ["x", "y", "z"], id="by namespace"),
        pytest.param("ml", {LABEL: "b"}, ["y", "z"], id="by our label"),
        pytest.param("ml", {LABEL: "b", "app": "b"}, ["y", "z"], id="by our label and another"),
        pytest.param(None, {"app": "a"}, ["w", "x"], id="by another label"),
        pytest.param(None, {LABEL: "nobody"}, [], id="by a label that nobody has"),
    ],
)
def test_lookups(namespace: str | None, labels: dict[str, str] | None, names: list[str]) -> None:
    store = MemoryStore()
    for obj in (pod("z", 1, job="b"), pod("y", 2, job="b"), pod("x", 3), pod("w", 4, namespace="aa")):
        store.put(obj)
    assert [obj["metadata"]["name"] for obj in store.list("Pod", namespace, labels)] == names


def test_an_object_whose_label_changed_is_found_by_the_new_one_only() -> None:
    store = MemoryStore()
    store.put(pod("x", 1, job="a"))
    store.put(pod("x", 2, job="b"))
    assert store.list("Pod", labels={LABEL: "a"}) == []
    assert len(store.list("Pod", labels={LABEL: "b"})) == 1


def test_a_list_removes_what_the_watch_missed_and_adds_what_is_new() -> None:
    store = MemoryStore()
    for obj in (pod("kept", 1), pod("changed", 2), pod("deleted", 3)):
        store.put(obj)
    changed = store.reconcile("Pod", [pod("kept", 1), pod("changed", 7), pod("new", 8)], as_of=10)
    assert {obj["metadata"]["name"] for obj in changed} == {"changed", "new", "deleted"}
    assert held(store) == [("changed", 7), ("kept", 1), ("new", 8)]


def test_a_list_does_not_remove_what_the_watch_brought_after_it_was_taken() -> None:
    store = MemoryStore()
    store.put(pod("younger", 11))
    assert store.reconcile("Pod", [], as_of=10) == []
    assert held(store) == [("younger", 11)]


def test_a_list_of_one_namespace_says_nothing_about_another() -> None:
    store = MemoryStore()
    store.put(pod("elsewhere", 1, namespace="other"))
    assert store.reconcile("Pod", [], as_of=10, namespace="ml") == []
    assert held(store) == [("elsewhere", 1)]


def test_of_managed_fields_only_our_applied_ones_are_kept() -> None:
    ours = {"manager": "tuningfork", "operation": "Apply", "fieldsV1": {"f:data": {}}}
    others = [
        {"manager": "kubectl", "operation": "Update"},
        {"manager": "tuningfork", "operation": "Update", "subresource": "status"},
    ]
    obj = pod("a", 1)
    obj["metadata"]["managedFields"] = [*others, ours]
    store = MemoryStore()
    store.put(obj)
    assert store.list("Pod")[0]["metadata"]["managedFields"] == [ours]
    assert len(obj["metadata"]["managedFields"]) == 3, "what came in is not changed"
