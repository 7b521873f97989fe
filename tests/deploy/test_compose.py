"""compose.yaml is read by Docker Compose itself, profile by profile, and holds what docs/deploy.md says of it."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from app.core.settings import Settings, load_settings
from tests.deploy.conftest import ROOT, passes, run

OURS = ["api", "worker"]
PROFILES = {
    "": OURS,
    "postgres": [*OURS, "postgres"],
    "redis": [*OURS, "redis"],
    "observability": [*OURS, "prometheus", "alertmanager", "grafana"],
}
UNITS = {"s": 1, "m": 60}


def services(*profiles: str) -> dict[str, Any]:
    """The services of these profiles, as Compose understands them; without what a `.env` of a developer says."""
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    said = passes(
        "docker-compose", "--env-file", "/dev/null", *chosen, "config", "--format", "json", "--no-env-resolution"
    )
    found: dict[str, Any] = json.loads(said)["services"]
    return found


def seconds(span: str) -> int:
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([ms])", span))


@pytest.fixture(scope="module")
def everything() -> dict[str, Any]:
    return services("*")


def test_it_keeps_to_the_schema() -> None:
    passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")


def test_compose_would_find_a_fault() -> None:
    worse = (
        (ROOT / "compose.yaml").read_text().replace("    restart: unless-stopped", "").replace("cap_drop", "cap_dorp")
    )
    assert "cap_dorp" in run("docker-compose", "-f", "-", "config", given=worse).stderr


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_has_its_services(profile: str) -> None:
    assert sorted(services(*filter(None, [profile]))) == sorted(PROFILES[profile])


def test_nothing_is_reached_from_outside_this_machine(everything: dict[str, Any]) -> None:
    assert {port["host_ip"] for service in everything.values() for port in service.get("ports", [])} == {"127.0.0.1"}
    assert not {"postgres", "redis", "worker"} & {name for name, service in everything.items() if "ports" in service}


def test_everything_starts_again_and_says_whether_it_is_well(everything: dict[str, Any]) -> None:
    healthy = everything.keys() - {"api", "worker"}  # the API's check is the image's
    assert {name for name, service in everything.items() if "test" in service.get("healthcheck", {})} == healthy
    for name, service in everything.items():
        assert service["restart"] == "unless-stopped", name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("healthcheck", {"test": ["CMD"]}).get("test", ["CMD"])[0] == "CMD", "a shell"


def test_our_programs_may_do_nothing_but_their_work(everything: dict[str, Any]) -> None:
    for name in OURS:
        service = everything[name]
        assert (service["read_only"], service["cap_drop"], service["tmpfs"]) == (True, ["ALL"], ["/tmp"])
        assert [volume["target"] for volume in service["volumes"]] == ["/srv/data"]


def test_a_stop_waits_longer_than_the_programs_do(everything: dict[str, Any]) -> None:
    fields = Settings.model_fields
    grace = fields["shutdown_grace_seconds"].default + fields["stop_grace_seconds"].default
    assert all(seconds(everything[name]["stop_grace_period"]) >= grace + 10 for name in OURS)


def test_passwords_come_from_files(everything: dict[str, Any]) -> None:
    for name, service in everything.items():
        for variable in service.get("environment", {}):
            assert not re.search(r"PASSWORD$|URL$|KEY$", variable), name
    assert [secret["source"] for secret in everything["api"]["secrets"]] == ["database_url"]


def test_prometheus_reads_its_key_where_compose_puts_it(everything: dict[str, Any]) -> None:
    (secret,) = everything["prometheus"]["secrets"]
    asked = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    (read,) = [each["authorization"]["credentials_file"] for each in asked if each["job_name"] == "taskservice"]
    assert read == secret.get("target", f"/run/secrets/{secret['source']}")


def test_the_default_secret_is_a_database_on_the_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(ROOT / "deploy/compose/sqlite"))
    assert load_settings().database_url == "sqlite:////srv/data/tasks.db"


def test_every_image_is_of_one_named_release(everything: dict[str, Any]) -> None:
    foreign = [service["image"] for name, service in everything.items() if name not in OURS]
    assert all(re.fullmatch(r"[\w./-]+:v?\d+[\w.-]*", image) for image in foreign)


def test_prometheus_asks_services_that_exist(everything: dict[str, Any]) -> None:
    asked = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    names = {
        name for each in asked["scrape_configs"] for dns in each.get("dns_sd_configs", []) for name in dns["names"]
    }
    alerted = asked["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert names | {target.split(":")[0] for target in alerted} <= everything.keys()


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool here (Debian: apt install prometheus)")
def test_promtool_takes_the_configuration() -> None:
    """But for the key, which is in the container alone: tests/deploy/test_watching.py has Prometheus show it."""
    checked = ["promtool", "check", "config", "--syntax-only", "deploy/prometheus/prometheus.yml"]
    done = subprocess.run(checked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("amtool"), reason="no amtool here (Debian: apt install prometheus-alertmanager)")
def test_amtool_takes_the_configuration() -> None:
    checked = ["amtool", "check-config", "deploy/prometheus/alertmanager.yml"]
    done = subprocess.run(checked, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
