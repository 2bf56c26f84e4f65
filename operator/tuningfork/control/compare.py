"""Whether a child must be applied again: does the live object differ from the desired one in a field that is ours?

Two questions, because each alone misses something. *Is everything we want there?* compares the desired object as a subset of the
live one: the API server adds defaults and other managers add fields, neither is a difference. *Do we still own what we no longer
want?* reads our entry of managedFields: a key that left the desired object stays in the live one until the next apply drops it.

An apply that changes nothing would be harmless but not free: a converged object shall cause no writes. Rejected: a hash of the
desired object in an annotation (kubectl edit then goes unseen).
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tuningfork.planning.plan import Manifest

_IDENTITY = ("apiVersion", "kind")
_LIST_KEYS = ("name", "containerPort", "port", "mountPath", "key", "ip", "uid", "type", "topologyKey")
"""Fields that name the entries of Kubernetes' lists, the most telling first; entries are matched by them, not by position."""


_EXACT_MAPS = frozenset({"nodeSelector", "selector"})
"""Maps that are replaced as a whole, so that a key too many is a difference; other such maps get defaults from the server."""

_QUANTITIES = frozenset({"requests", "limits", "sizeLimit"})
"""Below these, values are quantities, which the server writes in its own way; anywhere else 1.0 and 1 are two texts."""


def needs_apply(desired: Manifest, live: Manifest) -> bool:
    """Whether applying ``desired`` would change something of ours."""
    wanted = {key: value for key, value in desired.items() if key not in _IDENTITY}
    return not is_subset(wanted, live) or any(_leftovers(wanted, live, entry) for entry in _ours(live))


def is_subset(desired: Any, live: Any, *, quantity: bool = False) -> bool:
    """Whether everything in ``desired`` is in ``live``. What is empty, zero or false may be absent: so JSON is written in Go."""
    if live is None:
        return not desired
    if isinstance(desired, Mapping) and isinstance(live, Mapping):
        return all(
            is_subset(value, live.get(key), quantity=quantity or key in _QUANTITIES) for key, value in desired.items()
        )
    if isinstance(desired, list | tuple) and isinstance(live, list):
        return _is_sublist(desired, live)
    return desired is None or bool(desired == live) or (quantity and _same(desired, live))


def _is_sublist(desired: Sequence[Any], live: Sequence[Any]) -> bool:
    key = _list_key(desired, live)
    if key:
        by_name = {entry[key]: entry for entry in live}
        return all(entry[key] in by_name and is_subset(entry, by_name[entry[key]]) for entry in desired)
    return len(desired) == len(live) and all(map(is_subset, desired, live))


def _list_key(*lists: Sequence[Any]) -> str | None:
    """The field whose values name the entries of the lists, if there is one; without it order and length count."""
    return next((key for key in _LIST_KEYS if all(_names_all(entries, key) for entries in lists)), None)


def _names_all(entries: Sequence[Any], key: str) -> bool:
    if not all(isinstance(entry, Mapping) and isinstance(entry.get(key), str | int) for entry in entries):
        return False
    return len({entry[key] for entry in entries}) == len(entries)


def _ours(live: Manifest) -> list[Mapping[str, Any]]:
    """Our own fields as the API server noted them; the store keeps no other entries."""
    return [entry.get("fieldsV1", {}) for entry in live["metadata"].get("managedFields", [])]


def _leftovers(desired: Any, live: Any, owned: Mapping[str, Any]) -> bool:
    """Whether ``owned`` names something that ``desired`` has not.

    fieldsV1 writes a field as ``f:name``, a list entry as ``k:{"name":"x"}``, an element of a set as ``v:"x"``, itself as ``.``.
    """
    return any(_is_leftover(desired, live, path, below) for path, below in owned.items() if path != ".")


def _is_leftover(desired: Any, live: Any, path: str, below: Mapping[str, Any]) -> bool:
    kind, _, rest = path.partition(":")
    match kind:
        case "f":
            wanted, there = _field(desired, rest), _field(live, rest)
            if wanted is None:
                return there is not None
            return _leftovers(wanted, there, below) if below else _is_larger(rest, wanted, there)
        case "k":
            names = json.loads(rest)
            wanted, there = _entry(desired, names), _entry(live, names)
            return wanted is None or _leftovers(wanted, there, below)
        case "v":
            return json.loads(rest) not in (desired or ())
    return False


def _is_larger(name: str, desired: Any, live: Any) -> bool:
    """Whether a value that is replaced as a whole holds more than we want; less is what `is_subset` finds."""
    if isinstance(desired, list | tuple) and isinstance(live, list):
        return len(live) > len(desired)
    return name in _EXACT_MAPS and isinstance(live, Mapping) and not live.keys() <= desired.keys()


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _entry(entries: Any, names: Mapping[str, Any]) -> Any:
    """The entry of that name; a part of it that we leave to its default, such as a port's protocol, is no difference."""
    return next((e for e in entries or () if all(e.get(key, value) == value for key, value in names.items())), None)


_SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
_SUFFIXES |= {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}


def _same(one: Any, other: Any) -> bool:
    """Equal as quantities: the server stores ``0.5`` as ``500m`` and ``1024Mi`` as ``1Gi``."""
    amounts = [_amount(one), _amount(other)]
    return None not in amounts and math.isclose(*amounts, rel_tol=1e-12)  # type: ignore[arg-type]


def _amount(quantity: Any) -> float | None:
    text = str(quantity)
    number = text.rstrip("mkMGTPi")
    try:
        value = float(number)
    except ValueError:
        return None
    suffix = text[len(number) :]
    if not math.isfinite(value) or (suffix and suffix not in _SUFFIXES):
        return None
    return value * _SUFFIXES.get(suffix, 1.0)


def finite(value: Any) -> Any:
    """Without numbers that are not finite (JSON has none, and a diverging training reports NaN) and without absent fields."""
    if isinstance(value, Mapping):
        cleaned = {key: finite(item) for key, item in value.items()}
        return {key: item for key, item in cleaned.items() if item is not None}
    if isinstance(value, list | tuple):
        return [item for item in map(finite, value) if item is not None]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
