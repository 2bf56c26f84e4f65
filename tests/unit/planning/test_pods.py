"""Every pod of ours is restricted, and the administrator's fragment wins."""

from tuningfork.api import Settings
from tuningfork.planning.plan import Manifest
from tuningfork.planning.pods import build_container, build_pod_template, env_list


def make_settings(**pods: object) -> Settings:
    images = {"trainer": "trainer:1", "serving": "serving:1", "pullPolicy": "Never"}
    return Settings.model_validate({"images": images, "s3": {"endpoint": "http://s3:7070"}, "pods": pods})


def make_pod(settings: Settings, *, s3: bool = False) -> Manifest:
    env = env_list({"HOME": "/work", "LEVEL": "1"})
    container = build_container(settings, "main", "image:1", ["run"], env=env, s3=s3)
    template = build_pod_template(settings, [container], labels={"a": "b"})
    spec: Manifest = template["spec"]
    return spec


def test_it_meets_the_restricted_pod_security_standard() -> None:
    pod = make_pod(make_settings())
    (container,) = pod["containers"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["automountServiceAccountToken"] is False


def test_the_fragment_is_added_and_its_variables_win() -> None:
    pod = make_pod(
        make_settings(
            volumes=[{"name": "usr", "hostPath": {"path": "/usr"}}],
            volumeMounts=[{"name": "usr", "mountPath": "/usr"}],
            env=[{"name": "LEVEL", "value": "2"}],
            nodeSelector={"pool": "gpu"},
            tolerations=[{"key": "gpu", "operator": "Exists"}],
        )
    )
    (container,) = pod["containers"]
    assert container["env"] == [{"name": "HOME", "value": "/work"}, {"name": "LEVEL", "value": "2"}]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp", "/usr"]
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp", "usr"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["tolerations"][-1] == {"key": "gpu", "operator": "Exists"}


def test_a_node_that_stops_answering_is_left_after_a_minute() -> None:
    assert {t["key"]: t["tolerationSeconds"] for t in make_pod(make_settings())["tolerations"]} == {
        "node.kubernetes.io/not-ready": 60,
        "node.kubernetes.io/unreachable": 60,
    }


def test_only_containers_that_need_the_store_get_its_credentials_and_a_missing_secret_shows() -> None:
    assert "envFrom" not in make_pod(make_settings())["containers"][0]
    container = make_pod(make_settings(), s3=True)["containers"][0]
    assert container["envFrom"] == [{"secretRef": {"name": "tuningfork-s3", "optional": False}}]
    assert {"name": "AWS_ENDPOINT_URL", "value": "http://s3:7070"} in container["env"]
