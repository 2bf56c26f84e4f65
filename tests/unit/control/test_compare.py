"""When a child is applied again."""

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuningfork.control.compare import finite, is_subset, needs_apply

scalars = st.one_of(st.text(max_size=5), st.integers(-5, 5), st.booleans())
fields = st.text("abcd", min_size=1, max_size=2)
objects = st.recursive(
    scalars,
    lambda of: st.one_of(st.dictionaries(fields, of, max_size=4), st.lists(of, max_size=3)),
    max_leaves=12,
)


@given(objects)
def test_an_object_is_a_subset_of_itself(value: Any) -> None:
    assert is_subset(value, copy.deepcopy(value))


@given(st.dictionaries(fields, objects, max_size=4), st.dictionaries(st.text("xyz", min_size=1), objects, max_size=4))
def test_fields_that_others_added_are_no_difference(desired: dict[str, Any], added: dict[str, Any]) -> None:
    assert is_subset(desired, desired | added)


@given(st.dictionaries(fields, objects, min_size=1, max_size=4), st.data())
def test_another_value_is_a_difference(desired: dict[str, Any], data: st.DataObject) -> None:
    field = data.draw(st.sampled_from(sorted(desired)))
    assert not is_subset(desired, desired | {field: "another value"})


@given(objects)
def test_what_is_cleaned_has_only_numbers_that_json_knows(value: Any) -> None:
    assert finite({"value": value, "bad": [math.nan, 1.5], "worse": {"x": math.inf}, "absent": None}) == {
        "value": finite(value),
        "bad": [1.5],
        "worse": {},
    }


CONTAINER = {
    "name": "engine",
    "image": "engine:1",
    "env": [{"name": "A", "value": "1"}],
    "ports": [{"containerPort": 8000}],
    "resources": {"requests": {"cpu": "0.5", "memory": "1024Mi"}},
}
DESIRED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "a", "namespace": "ml", "labels": {"tuningfork.dev/rollout": "a"}},
    "spec": {"replicas": 2, "template": {"spec": {"containers": [CONTAINER], "nodeSelector": {"zone": "a"}}}},
}
LIVE: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "a",
        "namespace": "ml",
        "uid": "u",
        "labels": {"tuningfork.dev/rollout": "a", "another": "label"},
        "managedFields": [
            {
                "fieldsV1": {
                    "f:metadata": {"f:labels": {"f:tuningfork.dev/rollout": {}}},
                    "f:spec": {
                        "f:replicas": {},
                        "f:template": {
                            "f:spec": {
                                "f:containers": {
                                    'k:{"name":"engine"}': {
                                        ".": {},
                                        "f:name": {},
                                        "f:image": {},
                                        "f:env": {'k:{"name":"A"}': {".": {}, "f:name": {}, "f:value": {}}},
                                        "f:ports": {
                                            'k:{"containerPort":8000,"protocol":"TCP"}': {
                                                ".": {},
                                                "f:containerPort": {},
                                            }
                                        },
                                        "f:resources": {"f:requests": {"f:cpu": {}, "f:memory": {}}},
                                    }
                                },
                                "f:nodeSelector": {},
                            }
                        },
                    },
                }
            }
        ],
    },
    "spec": {
        "replicas": 2,
        "progressDeadlineSeconds": 600,
        "template": {
            "spec": {
                "containers": [
                    CONTAINER
                    | {
                        "terminationMessagePath": "/dev/termination-log",
                        "ports": [{"containerPort": 8000, "protocol": "TCP"}],
                        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
                    },
                    {"name": "injected", "image": "sidecar"},
                ],
                "nodeSelector": {"zone": "a"},
                "restartPolicy": "Always",
            }
        },
    },
    "status": {"readyReplicas": 2},
}


def pod_spec(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return spec


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = pod_spec(manifest)["containers"][0]
    return first


def test_defaults_quantities_injected_containers_and_foreign_labels_are_no_difference() -> None:
    assert not needs_apply(DESIRED, LIVE)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: d["spec"].update(replicas=3), id="another number"),
        pytest.param(lambda d: d["metadata"]["labels"].clear(), id="a label that we no longer want"),
        pytest.param(lambda d: container(d).update(image="engine:2"), id="another image"),
        pytest.param(lambda d: container(d)["env"].append({"name": "B", "value": "2"}), id="a variable more"),
        pytest.param(lambda d: container(d)["env"].clear(), id="a variable less"),
        pytest.param(lambda d: container(d)["env"][0].update(value="1.0"), id="a text that is no quantity: 1 and 1.0"),
        pytest.param(lambda d: container(d).pop("ports"), id="a list less"),
        pytest.param(lambda d: container(d)["resources"]["requests"].update(cpu="600m"), id="another quantity"),
        pytest.param(lambda d: container(d)["resources"]["requests"].pop("cpu"), id="a request less"),
        pytest.param(lambda d: pod_spec(d)["containers"].append({"name": "loader"}), id="a container more"),
        pytest.param(lambda d: pod_spec(d)["nodeSelector"].clear(), id="a selector less"),
        pytest.param(lambda d: pod_spec(d).update(hostNetwork=True), id="a field more"),
    ],
)
def test_a_change_of_ours_is_applied(change: Any) -> None:
    desired = copy.deepcopy(DESIRED)
    change(desired)
    assert needs_apply(desired, LIVE)


@pytest.mark.parametrize(
    ("desired", "live", "owned", "expected"),
    [
        pytest.param(["a"], ["a"], {}, False, id="the same"),
        pytest.param(["a"], ["a", "b"], {}, True, id="shorter than what is there"),
        pytest.param(["b", "a"], ["a", "b"], {}, True, id="another order"),
        pytest.param([{"x": 1}], [{"x": 1, "default": 2}], {}, False, id="entries without names get defaults"),
        pytest.param(
            ["a"], ["a", "theirs"], {'v:"a"': {}}, True, id="a set is compared as a list: ours have one writer"
        ),
        pytest.param(
            [{"name": "a"}], [{"name": "a"}, {"name": "b"}], {}, True, id="replaced as a whole, one entry too many"
        ),
        pytest.param(
            [{"name": "a"}],
            [{"name": "a"}, {"name": "b"}],
            {'k:{"name":"a"}': {".": {}}},
            False,
            id="by name, one is another's",
        ),
        pytest.param(
            [{"name": "a"}],
            [{"name": "a"}, {"name": "b"}],
            {'k:{"name":"a"}': {".": {}}, 'k:{"name":"b"}': {".": {}}},
            True,
            id="by name, one was ours",
        ),
        pytest.param([], None, {}, False, id="empty and absent"),
    ],
)
def test_lists(desired: Any, live: Any, owned: dict[str, Any], expected: bool) -> None:
    obj = {"metadata": {"managedFields": [{"fieldsV1": {"f:list": owned}}]}, "list": live}
    assert needs_apply({"list": desired}, obj) is expected


@pytest.mark.parametrize("empty", [{}, [], "", 0, False, None])
def test_what_is_empty_may_be_absent(empty: Any) -> None:
    assert not needs_apply({"field": empty}, {"metadata": {}})
    assert not needs_apply({"field": empty}, {"metadata": {}, "field": None})


def test_a_key_that_left_a_config_map_is_dropped() -> None:
    owned: list[dict[str, Any]] = [{"fieldsV1": {"f:data": {"f:old": {}, "f:kept": {}}}}]
    live = {"metadata": {"managedFields": owned}, "data": {"old": "1", "kept": "2", "theirs": "3"}}
    assert needs_apply({"data": {"kept": "2"}}, live)
    assert needs_apply({}, live)
    assert not needs_apply({"data": {"old": "1", "kept": "2"}}, live)
