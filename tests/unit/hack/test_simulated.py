"""Simulated GPU nodes: exactly as many as asked for, with the labels that the scheduler and the operator read."""

import pytest

from devcluster import simulated
from devcluster.console import ClusterError
from devcluster.simulated import Request

A100 = Request("nvidia-a100-80gb", 8)


def test_a_node_has_capacity_labels_and_the_taint() -> None:
    node = simulated.node(0, A100)
    assert node["metadata"]["labels"] == {
        "kubernetes.io/hostname": "sim-nvidia-a100-80gb-0",
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "type": "kwok",
        "tuningfork.dev/simulated-gpu": "nvidia-a100-80gb",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": "8",
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
        "nvidia.com/gpu.memory": "81920",
        "nvidia.com/gpu.family": "ampere",
        "nvidia.com/gpu.compute.major": "8",
        "nvidia.com/gpu.compute.minor": "0",
    }
    assert node["metadata"]["annotations"] == {"kwok.x-k8s.io/node": "fake"}
    assert node["spec"]["taints"] == [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"


@pytest.mark.parametrize(
    ("present", "number", "create", "delete"),
    [
        pytest.param([], 2, ["sim-nvidia-a100-80gb-0", "sim-nvidia-a100-80gb-1"], [], id="none yet"),
        pytest.param([(0, A100), (1, A100)], 2, [], [], id="already so"),
        pytest.param([(0, A100), (1, A100)], 1, [], ["sim-nvidia-a100-80gb-1"], id="one too many"),
        pytest.param(
            [(0, Request("nvidia-a100-80gb", 4))],
            1,
            ["sim-nvidia-a100-80gb-0"],
            ["sim-nvidia-a100-80gb-0"],
            id="with another number of GPUs it is made again",
        ),
        pytest.param([(0, Request("nvidia-l4", 1))], 0, [], [], id="other GPUs' nodes stay"),
    ],
)
def test_exactly_so_many(present: list[tuple[int, Request]], number: int, create: list[str], delete: list[str]) -> None:
    existing = [simulated.node(index, request) for index, request in present]
    to_create, to_delete = simulated.plan(existing, number, A100)
    assert [node["metadata"]["name"] for node in to_create] == create
    assert to_delete == delete


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("nvidia-b9000:8", "not a GPU that can be simulated", id="unknown"),
        pytest.param("nvidia-l4", "how many a node has", id="no count"),
        pytest.param("nvidia-l4:0", "how many a node has", id="none"),
    ],
)
def test_a_wrong_gpu_is_explained(text: str, problem: str) -> None:
    with pytest.raises(ClusterError, match=problem):
        Request.parse(text)


def test_a_right_one_is_read() -> None:
    assert Request.parse("nvidia-a100-80gb:8") == A100
