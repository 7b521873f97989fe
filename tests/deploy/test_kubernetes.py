"""The Kubernetes manifests are rendered by kubectl, keep to the schemas of two Kubernetes versions, and agree among themselves."""

import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject, TriggerAuthentication
from cloudcoil.models.prometheus_operator.v1 import PrometheusRule, ServiceMonitor

from app.core.settings import Settings
from app.core.version import VERSION
from tests.deploy.conftest import ROOT, passes

HOME = ROOT / "deploy/kubernetes"
PLACES = ["overlays/postgres", "overlays/sqlite", "migration"]
VERSIONS = ["1.34", "1.37"]
CUSTOM = {
    "ScaledObject": ScaledObject,
    "TriggerAuthentication": TriggerAuthentication,
    "PrometheusRule": PrometheusRule,
    "ServiceMonitor": ServiceMonitor,
}
CLUSTER_WIDE = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def rendered() -> dict[str, list[Manifest]]:
    """What each place stands for."""
    return {place: list(yaml.safe_load_all(passes("kubectl", "kustomize", HOME / place))) for place in PLACES}


@pytest.fixture(params=PLACES)
def manifests(rendered: dict[str, list[Manifest]], request: pytest.FixtureRequest) -> list[Manifest]:
    return rendered[request.param]


def of(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in manifests if one["kind"] == kind}


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest]]:
    """Each controller with the specification of its pods."""
    for one in manifests:
        if "template" in one.get("spec", {}):
            yield one, one["spec"]["template"]["spec"]


def custom_as_read(manifest: Manifest) -> Manifest:
    """Of a custom resource, what its definition knows; a field that is misspelt gets lost. ValueError on a wrong type."""
    model = CUSTOM[manifest["kind"]]
    read: Manifest = model.model_validate(manifest).model_dump(mode="json", by_alias=True, exclude_unset=True)
    return read


# Schemas


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_keeps_to_the_schema(manifests: list[Manifest], version: str) -> None:
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_every_custom_resource_keeps_to_its_definition(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] in CUSTOM:
            assert custom_as_read(manifest) == manifest


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("fault", [{"replicaCount": 2}, {"replicas": "two"}])
def test_a_fault_would_be_found(rendered: dict[str, list[Manifest]], version: str, fault: Manifest) -> None:
    deployment = of(rendered["overlays/postgres"], "Deployment")["api"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment | {"spec": deployment["spec"] | fault}, version, strict=True)


def test_a_fault_in_a_custom_resource_would_be_found(rendered: dict[str, list[Manifest]]) -> None:
    scaled = of(rendered["overlays/postgres"], "ScaledObject")["worker"]
    misspelt = scaled | {"spec": scaled["spec"] | {"minReplicas": 1}}
    assert custom_as_read(misspelt) != misspelt
    with pytest.raises(ValueError, match="minReplicaCount"):
        custom_as_read(scaled | {"spec": scaled["spec"] | {"minReplicaCount": "one"}})


def test_everything_asked_for_is_there(rendered: dict[str, list[Manifest]]) -> None:
    assert {one["kind"] for one in rendered["overlays/postgres"]} == {
        *("ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PersistentVolumeClaim"),
        *("PodDisruptionBudget", "PrometheusRule", "ScaledObject", "Service", "ServiceMonitor"),
        "TriggerAuthentication",
    }


# What a pod may do


def test_no_pod_may_do_more_than_it_must(manifests: list[Manifest]) -> None:
    for _, pod in pods(manifests):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10_000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
            assert container["command"][0] == "python", "a shell"


def test_service_links_are_off(manifests: list[Manifest]) -> None:
    """A Service called `api` would set API_PORT to `tcp://...` in every pod."""
    assert all(pod["enableServiceLinks"] is False for _, pod in pods(manifests))


def test_a_pod_has_time_to_stop(manifests: list[Manifest]) -> None:
    fields = Settings.model_fields
    grace = fields["shutdown_grace_seconds"].default + fields["stop_grace_seconds"].default
    for controller, pod in pods(manifests):
        if controller["kind"] == "Deployment":
            asleep = [one.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}}) for one in pod["containers"]]
            before = max(each["sleep"]["seconds"] for each in asleep)
            assert pod["terminationGracePeriodSeconds"] >= grace + before + 10


def test_every_image_is_the_one_that_is_named_in_one_place(manifests: list[Manifest]) -> None:
    images = {container["image"] for _, pod in pods(manifests) for container in pod["containers"]}
    assert images == {f"tasks:{VERSION}"}


# Names that have to fit


def test_what_is_mounted_and_read_is_there(manifests: list[Manifest]) -> None:
    for _, pod in pods(manifests):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes.keys()
            assert "/run/secrets/tasks" in {mount["mountPath"] for mount in container["volumeMounts"]}
            read = {source["configMapRef"]["name"] for source in container.get("envFrom", [])}
            assert read <= of(manifests, "ConfigMap").keys()
        claims = {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in volumes.values()
            if "persistentVolumeClaim" in volume
        }
        assert claims <= of(manifests, "PersistentVolumeClaim").keys()


def test_every_setting_is_one(manifests: list[Manifest]) -> None:
    known = {name.upper() for name in Settings.model_fields} | {"SECRETS_DIR"}
    for settings in of(manifests, "ConfigMap").values():
        assert settings["data"].keys() <= known
    for _, pod in pods(manifests):
        assert {one["name"] for container in pod["containers"] for one in container.get("env", [])} <= known


def test_every_selector_finds_its_pods(manifests: list[Manifest]) -> None:
    templates = [one["spec"]["template"]["metadata"]["labels"] for one, _ in pods(manifests)]
    for one in manifests:
        spec = one.get("spec", {})
        if one["kind"] in ("Deployment", "PodDisruptionBudget"):
            wanted = [spec["selector"]["matchLabels"]]
        elif one["kind"] == "Service":
            wanted = [spec["selector"]]
        elif one["kind"] == "NetworkPolicy" and one["metadata"]["name"] != "worker":
            wanted = [spec["podSelector"]["matchLabels"]]
        elif one["kind"] == "ServiceMonitor":
            (service,) = of(manifests, "Service").values()
            assert spec["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
            assert {each["port"] for each in spec["endpoints"]} <= {port["name"] for port in service["spec"]["ports"]}
            continue
        else:
            continue
        assert all(any(labels.items() <= found.items() for found in templates) for labels in wanted), one


def test_the_scalers_scale_what_is_there_and_alone(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["overlays/postgres"]
    scalers = of(manifests, "HorizontalPodAutoscaler") | of(manifests, "ScaledObject")
    deployments = of(manifests, "Deployment")
    assert {one["spec"]["scaleTargetRef"]["name"] for one in scalers.values()} == deployments.keys()
    assert all("replicas" not in one["spec"] for one in deployments.values()), "each apply would undo the scaler's work"


def test_the_scaler_asks_the_service(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["overlays/postgres"]
    (trigger,) = of(manifests, "ScaledObject")["worker"]["spec"]["triggers"]
    service = of(manifests, "Service")["api"]
    address = f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert trigger["metadata"]["url"].startswith(address + "/")
    assert service["spec"]["ports"][0]["port"] == 80


def test_only_the_one_to_try_goes_without_a_key(rendered: dict[str, list[Manifest]]) -> None:
    for place, without in (("overlays/postgres", False), ("overlays/sqlite", True)):
        (api,) = [one for _, pod in pods(rendered[place]) for one in pod["containers"] if one["name"] == "api"]
        assert ("--insecure" in api["command"]) == without


def test_everything_is_in_one_namespace_but_what_has_none(manifests: list[Manifest]) -> None:
    for one in manifests:
        assert one["metadata"].get("namespace") == (None if one["kind"] in CLUSTER_WIDE else "tasks"), one["kind"]


def test_the_operator_gets_the_same_alerts_as_prometheus(rendered: dict[str, list[Manifest]]) -> None:
    (rule,) = of(rendered["overlays/postgres"], "PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())


def test_the_runbook_has_every_alert(rendered: dict[str, list[Manifest]]) -> None:
    runbook = (ROOT / "docs/deploy.md").read_text().split("## Runbook")[1]
    for rule in of(rendered["overlays/postgres"], "PrometheusRule").values():
        alerts = [each["alert"] for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each]
        assert alerts
        assert [alert for alert in alerts if f"`{alert}`" not in runbook] == []


# SQLite


def test_sqlite_is_one_pod_and_a_second_is_refused(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["overlays/sqlite"]
    (deployment,) = of(manifests, "Deployment").values()
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert [container["name"] for container in deployment["spec"]["template"]["spec"]["containers"]] == [
        "api",
        "worker",
    ]
    (claim,) = of(manifests, "PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    assert not {"HorizontalPodAutoscaler", "ScaledObject"} & {one["kind"] for one in manifests}
    (policy,) = of(manifests, "ValidatingAdmissionPolicy").values()
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert rule["resourceNames"] == [deployment["metadata"]["name"]]
    assert rule["resources"] == ["deployments", "deployments/scale"]
    assert policy["spec"]["validations"][0]["expression"] == "object.spec.replicas <= 1"
    (bound,) = of(manifests, "ValidatingAdmissionPolicyBinding").values()
    assert bound["spec"]["policyName"] == policy["metadata"]["name"]


def test_only_sqlite_names_its_database_in_the_open(rendered: dict[str, list[Manifest]]) -> None:
    for place in PLACES:
        text = yaml.safe_dump_all(rendered[place])
        assert re.findall(r"DATABASE_URL: (\S+)", text) == (
            ["sqlite:////srv/data/tasks.db"] if "sqlite" in place else []
        )
        assert "Secret\n" not in text
