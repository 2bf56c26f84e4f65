"""The objects that the watches have seen, newest version of each.

Three writers meet here: the watch, the periodic list (`prune`), and the executor, which puts the API server's answer to its own
write so that the next reconcile does not decide on what it has just changed. They may arrive in any order, so:

- an older resourceVersion never replaces a newer one (they are comparable numbers by Kubernetes' API contract);
- what was deleted never comes back: uids are remembered for a while, because a write's answer can be slower than the watch;
- a deletion removes only the object it speaks of, not a successor of the same name.

Of managedFields only our own applied fields are kept: the comparison needs those, and the rest is a third of an object's size.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from tuningfork.api._base import GROUP
from tuningfork.api._meta import FIELD_MANAGER
from tuningfork.planning.plan import Manifest

REMEMBERED_DELETIONS: Final = 10_000
"""Uids of deleted objects; a write's answer is late by milliseconds, this covers minutes of the busiest cluster."""

Name = tuple[str, str]
"""Namespace and name; the namespace of cluster-wide objects is empty."""


def version(obj: Manifest) -> int:
    """The resourceVersion as the number that it is."""
    return int(obj["metadata"].get("resourceVersion") or 0)


def name_of(obj: Manifest) -> Name:
    """What identifies the object among its kind."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def trimmed(obj: Manifest) -> Manifest:
    """The object with only our own entry of managedFields."""
    managed = obj["metadata"].get("managedFields")
    if managed is None:
        return obj
    ours = [
        entry
        for entry in managed
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource")
    ]
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    return obj | {"metadata": metadata | ({"managedFields": ours} if ours else {})}


class MemoryStore:
    """The `Store` of the controllers, with an index by our labels: a lookup by label costs what it returns."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Name, Manifest]] = defaultdict(dict)
        self._labelled: dict[tuple[str, str, str], set[Name]] = defaultdict(set)
        self._deleted: OrderedDict[str, None] = OrderedDict()

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return self._objects[kind].get((namespace, name))

    def list(self, kind: str, namespace: str | None = None, labels: dict[str, str] | None = None) -> list[Manifest]:
        """Objects of a kind, by namespace and by exact labels, sorted by namespace and name."""
        objects = self._objects[kind]
        wanted = labels or {}
        indexed = [self._labelled.get((kind, *item), set()) for item in wanted.items() if _is_ours(item[0])]
        names: Iterable[Name] = set.intersection(*indexed) if indexed else objects
        found = (name for name in names if namespace is None or name[0] == namespace)
        return [
            objects[name]
            for name in sorted(found)
            if wanted.items() <= objects[name]["metadata"].get("labels", {}).items()
        ]

    def put(self, obj: Manifest) -> bool:
        """Whether it was news."""
        kind, name, uid = obj["kind"], name_of(obj), obj["metadata"].get("uid", "")
        held = self._objects[kind].get(name)
        if uid in self._deleted or (held and version(held) >= version(obj)):
            return False
        if held:
            self._drop(kind, name)
        self._objects[kind][name] = trimmed(obj)
        for label in _our_labels(obj):
            self._labelled[kind, *label].add(name)
        return True

    def remove(self, obj: Manifest) -> bool:
        """What the watch said is deleted; whether it was held."""
        kind, name, uid = obj["kind"], name_of(obj), obj["metadata"].get("uid", "")
        self._deleted[uid] = None
        if len(self._deleted) > REMEMBERED_DELETIONS:
            self._deleted.popitem(last=False)
        held = self._objects[kind].get(name)
        if held is None or held["metadata"].get("uid", "") != uid:
            return False
        self._drop(kind, name)
        return True

    def reconcile(
        self, kind: str, listed: Iterable[Manifest], as_of: int, namespace: str | None = None
    ) -> Sequence[Manifest]:
        """Makes the store equal to a complete list taken at ``as_of``; the objects that were added, changed or removed.

        What the store knows from after that moment stays: the watch was faster than the list.
        """
        listed = list(listed)
        changed = [obj for obj in listed if self.put(obj)]
        there = {obj["metadata"].get("uid", "") for obj in listed}
        missing = [
            obj
            for name, obj in self._objects[kind].items()
            if namespace in (None, name[0]) and obj["metadata"].get("uid", "") not in there and version(obj) <= as_of
        ]
        return changed + [obj for obj in missing if self.remove(obj)]

    def _drop(self, kind: str, name: Name) -> None:
        for label in _our_labels(self._objects[kind].pop(name)):
            names = self._labelled[kind, *label]
            names.discard(name)
            if not names:
                del self._labelled[kind, *label]


def _is_ours(label: str) -> bool:
    return label.startswith(f"{GROUP}/")


def _our_labels(obj: Manifest) -> list[tuple[str, str]]:
    return [item for item in obj["metadata"].get("labels", {}).items() if _is_ours(item[0])]
