"""Who watches the service gets in by the key they were given, once keys are asked for: KEDA by its trigger, Prometheus by its
configuration, each as it stands in `deploy`, and with the keys that docs/deploy.md has made."""

import asyncio
import base64
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.conftest import until
from tests.deploy.conftest import ROOT, TOOLS, passes
from tests.walk.conftest import House

PAGE = (ROOT / "docs/deploy.md").read_text()


def key(house: House, name: str) -> str:
    """What the page's command to make this key prints."""
    (command,) = set(re.findall(rf"python -m app\.keys create {name} --scopes \w+", PAGE))
    _, *arguments = command.split()
    made = subprocess.run(
        [sys.executable, *arguments], cwd=house.folder, env=house.settings, capture_output=True, text=True, check=True
    )
    return made.stdout


@pytest.fixture(scope="module")
def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(passes("kubectl", "kustomize", ROOT / "deploy/kubernetes/overlays/postgres")))


def only(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [one for one in manifests if one["kind"] == kind]
    return found


def secret(token: str, tmp_path: Path) -> dict[str, Any]:
    """The Secret that the page's lines make of a key, by kubectl itself, without a cluster."""
    (line,) = re.findall(r"create watching --scopes read \| (tr .* \|\n.*)", PAGE)
    line = line.replace("kubectl", f"{TOOLS}/kubectl") + " --dry-run=client --output=yaml"
    done = subprocess.run(["/bin/sh", "-ec", line], input=token, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = yaml.safe_load(done.stdout)
    return made


async def test_keda_and_the_operator_show_a_key_that_opens_what_they_ask_for(
    house: House, manifests: list[dict[str, Any]], tmp_path: Path
) -> None:
    _, client = await house.api()
    key(house, "admin")
    made = secret(key(house, "watching"), tmp_path)

    scaled, shown = only(manifests, "ScaledObject"), only(manifests, "TriggerAuthentication")
    (trigger,) = scaled["spec"]["triggers"]
    assert trigger["metadata"]["authMode"] == "bearer"
    assert trigger["authenticationRef"]["name"] == shown["metadata"]["name"]
    (parameter,) = shown["spec"]["secretTargetRef"]
    assert parameter["parameter"] == "token"
    (endpoint,) = only(manifests, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["authorization"].get("type", "Bearer") == "Bearer"

    asked = {
        httpx.URL(trigger["metadata"]["url"]).path: parameter,
        endpoint["path"]: endpoint["authorization"]["credentials"],
    }
    await until_keys_are_on(client)
    for path, of in asked.items():
        assert (of["name"], made["metadata"]["namespace"]) == (made["metadata"]["name"], "tasks")
        token = base64.b64decode(made["data"][of["key"]]).decode()
        answer = await client.get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        assert (await client.get(path)).status_code == 401
    answer = await client.get("/autoscale", headers={"Authorization": f"Bearer {token}"})
    assert isinstance(answer.json()[trigger["metadata"]["valueLocation"]], int)


async def until_keys_are_on(client: httpx.AsyncClient) -> None:
    async def on() -> bool:
        return (await client.get("/metrics")).status_code == 401

    await until(on, 20)


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[httpx.AsyncClient]:
    """Prometheus with our configuration, but for where things are and how often it looks."""
    configuration = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (ours,) = [each for each in configuration["scrape_configs"] if each["job_name"] == "taskservice"]
    ours["authorization"]["credentials_file"] = str(folder / "watching")
    del ours["dns_sd_configs"]
    ours |= {"static_configs": [{"targets": [target]}], "scrape_interval": "1s", "scrape_timeout": "1s"}
    configuration |= {"scrape_configs": [ours], "rule_files": [], "alerting": {}}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *("prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/series"),
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}", timeout=10) as client:
            yield client
    finally:
        process.kill()
        await process.wait()


@pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus here (Debian: apt install prometheus)")
async def test_prometheus_scrapes_before_there_are_keys_and_with_its_key_afterwards(
    house: House, tmp_path: Path
) -> None:
    _, client = await house.api()
    watching = tmp_path / "watching"
    watching.touch()
    async with prometheus(tmp_path, client.base_url.netloc.decode()) as server:

        async def target() -> dict[str, Any] | None:
            """Once it has been scraped."""
            try:
                (found,) = (await server.get("/api/v1/targets")).json()["data"]["activeTargets"]
            except (httpx.TransportError, ValueError):
                return None
            return None if found["health"] == "unknown" else dict(found)

        async def health(wanted: str) -> bool:
            found = await target()
            return found is not None and found["health"] == wanted

        await until(lambda: health("up"), 40)
        key(house, "admin")
        await until(lambda: health("down"), 40)
        found = await target()
        assert found is not None
        assert "401" in found["lastError"]
        watching.write_text(key(house, "watching"))
        await until(lambda: health("up"), 40)
