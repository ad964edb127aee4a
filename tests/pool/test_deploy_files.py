"""The files that deploy the pool: as Serve's own schema and KubeRay's resource want them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from backends.local.pool import serving
from settings import Settings

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "ray"


def of_serve() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "serve_config.yaml").read_text("utf-8")))


def of_kubernetes() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "kuberay.yaml").read_text("utf-8")))


CONFIGS: dict[str, Callable[[], dict[str, Any]]] = {
    "serve": of_serve,
    "kuberay": lambda: dict(yaml.safe_load(of_kubernetes()["spec"]["serveConfigV2"])),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_serve_takes_the_config(kind: str) -> None:
    config = ServeDeploySchema.model_validate(CONFIGS[kind]())
    (application,) = config.applications
    module, name = application.import_path.split(":")
    assert module == serving.__name__ and hasattr(serving, name)
    (ours,) = application.deployments
    assert ours.name == serving.deployment.name
    assert ours.max_ongoing_requests == serving.deployment.max_ongoing_requests
    assert ours.ray_actor_options.num_gpus == 1


@pytest.mark.parametrize("kind", CONFIGS)
def test_its_variables_are_the_playgrounds(kind: str) -> None:
    (application,) = CONFIGS[kind]()["applications"]
    known = {field.alias for field in Settings.model_fields.values()}
    assert application["runtime_env"]["env_vars"].keys() <= known


def test_both_deploy_the_same_but_for_their_size_and_host() -> None:
    ours, theirs = (make() for make in CONFIGS.values())
    for config in (ours, theirs):
        del config["http_options"]["host"]
        del config["applications"][0]["deployments"][0]["autoscaling_config"]["max_replicas"]
    assert ours == theirs


def test_the_pool_listens_to_this_machine_alone_unless_told_otherwise() -> None:
    assert of_serve()["http_options"]["host"] == "127.0.0.1"


# -- Kubernetes ----------------------------------------------------------------


def test_the_manifest_is_a_ray_service() -> None:
    """The parts that the resource's definition requires, by their names there."""
    manifest = of_kubernetes()
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    assert manifest["metadata"]["name"]
    spec = manifest["spec"]
    assert spec.keys() <= {
        "serveConfigV2", "rayClusterConfig", "upgradeStrategy", "excludeHeadPodFromServeSvc",
    }  # fmt: skip
    cluster = spec["rayClusterConfig"]
    assert cluster.keys() <= {
        "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
        "workerGroupSpecs",
    }  # fmt: skip
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        for container in group["template"]["spec"]["containers"]:
            assert container["name"] and container["image"]
            assert container["resources"]["requests"] == container["resources"]["limits"]


def worker() -> tuple[dict[str, Any], dict[str, Any]]:
    """A GPU's pod and its container."""
    (group,) = of_kubernetes()["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    (container,) = pod["containers"]
    return pod, container


def test_a_worker_is_one_gpu_and_there_are_as_many_as_replicas() -> None:
    _pod, container = worker()
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    (deployment,) = CONFIGS["kuberay"]()["applications"][0]["deployments"]
    (group,) = of_kubernetes()["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert group["maxReplicas"] == deployment["autoscaling_config"]["max_replicas"]


def test_a_worker_has_the_pages_folder_at_the_same_path() -> None:
    pod, container = worker()
    config = CONFIGS["kuberay"]()
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    shared = config["applications"][0]["runtime_env"]["env_vars"]["PLAYGROUND_DATA_DIR"]
    assert mounts[shared]["readOnly"]
    assert {mount["name"] for mount in mounts.values()} == {v["name"] for v in pod["volumes"]}
    (port,) = container["ports"]
    assert port["containerPort"] == config["http_options"]["port"]


def test_a_worker_may_finish_its_line_before_it_goes() -> None:
    pod, _container = worker()
    (deployment,) = CONFIGS["kuberay"]()["applications"][0]["deployments"]
    assert pod["terminationGracePeriodSeconds"] > deployment["graceful_shutdown_timeout_s"]


def test_the_ray_of_the_manifest_is_one_that_is_required() -> None:
    required = (FOLDER.parents[1] / "requirements-ray.txt").read_text("utf-8")
    version = of_kubernetes()["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"ray[serve]>={version.removesuffix('.0')}\n" in required
