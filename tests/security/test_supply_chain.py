"""What we are made of: no version with a known hole, and no code that lets data become code."""

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.version import Version

from app.models.sqlite import sqlite
from tests.test_requirements import FILES, read

ROOT = Path(__file__).parents[2]

# The first version without the hole. An audit service may be out of reach, and may know less than it says; this list is
# ours, works without a network, and only grows.
LEAST = {
    "certifi": ("2024.7.4", "CVE-2024-39689: a root that is trusted no more"),
    "h11": ("0.16.0", "CVE-2025-43859: chunks read in two ways"),
    "httptools": ("0.6.1", "llhttp with CVE-2023-30589, requests read in two ways"),
    "idna": ("3.7", "CVE-2024-3651: quadratic time"),
    "jinja2": ("3.1.6", "CVE-2025-27516: out of the sandbox"),
    "mako": ("1.2.2", "CVE-2022-40023: quadratic time"),
    "orjson": ("3.9.15", "CVE-2024-27454: recursion without end"),
    "pillow": ("12.3.0", "CVE-2026-59197, -59199, -55380 and more: writes out of bounds, bombs"),
    "pydantic": ("2.4.0", "CVE-2024-3772: an address that takes for ever"),
    "pygments": ("2.15.1", "CVE-2022-40896: quadratic time"),
    "python-multipart": ("0.0.31", "CVE-2026-24486 and a length below zero that read everything"),
    "requests": ("2.32.4", "CVE-2024-47081: credentials of another host"),
    "starlette": ("1.3.1", "CVE-2025-62727, CVE-2026-48710, CVE-2026-54283: quadratic Range, Host, limits of forms"),
    "urllib3": ("2.7.0", "CVE-2026-44432, CVE-2026-21441: bombs"),
    "uvicorn": ("0.11.7", "CVE-2020-7694, CVE-2020-7695: lines and headers of others' making"),
    "zipp": ("3.19.1", "CVE-2024-5569: an archive that never ends"),
}
LEAST_SQLITE = (3, 51, 3)
"""Before it a WAL file may break when two connections write and checkpoint at once."""


@pytest.mark.parametrize("file", FILES)
def test_no_pin_is_below_its_least_version(file: str) -> None:
    low = [f"{pin.name} {pin.version}: {LEAST[pin.name][1]}" for pin in read(file) if _is_low(pin.name, pin.version)]
    assert low == []


def _is_low(name: str, version: str) -> bool:
    return name in LEAST and Version(version) < Version(LEAST[name][0])


def test_the_table_is_about_what_is_pinned() -> None:
    """A name with a slip of the pen would guard nothing."""
    pinned = {pin.name for file in FILES for pin in read(file)}
    assert LEAST.keys() - pinned <= {"jinja2", "zipp", "pygments"}
    assert len(LEAST.keys() & pinned) >= 12
    assert _is_low("starlette", "1.3.0")
    assert not _is_low("starlette", "1.3.1")


def test_the_sqlite_that_is_shipped_is_no_affected_one() -> None:
    if not any(pin.name == "pysqlite3" and pin.wanted_here() for pin in read("requirements.txt")):
        pytest.skip("pysqlite3 has no wheel for this platform; the service says so at start")
    assert sqlite.sqlite_version_info >= LEAST_SQLITE


MODULES = frozenset(
    ["pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib"]
)
CALLS = frozenset(
    [
        *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
        *(
            "subprocess.getstatusoutput",
            "yaml.load",
            "yaml.unsafe_load",
            "yaml.full_load",
            "asyncio.create_subprocess_shell",
        ),
    ]
)


def _dangers(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"line {node.lineno}: import {one.name}" for one in names if one.name in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield f"line {node.lineno}: from {module}"
            case ast.Call(func=function, keywords=keywords):
                name = ast.unparse(function)
                if name in CALLS:
                    yield f"line {node.lineno}: {name}()"
                for keyword in keywords:
                    if keyword.arg == "shell" and ast.unparse(keyword.value) != "False":
                        yield f"line {node.lineno}: shell="


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if not line.startswith("tests/")]


def test_nothing_turns_data_into_code() -> None:
    files = _tracked()
    assert len(files) > 150
    found = {str(path.relative_to(ROOT)): list(_dangers(path.read_text())) for path in files if path.exists()}
    assert {name: dangers for name, dangers in found.items() if dangers} == {}


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "import marshal as m", "from joblib.x import y", "eval('1')"),
        *("exec(x)", "os.system('ls')", "subprocess.run('ls', shell=True)", "yaml.load(x)", "compile(a, b, 'exec')"),
        *("run(x, shell=flag)", "asyncio.create_subprocess_shell('ls')", "os.popen('ls')"),
    ],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert len(list(_dangers(source))) == 1


@pytest.mark.parametrize("source", ["re.compile('x')", "subprocess.run(['ls'], shell=False)", "json.loads(x)"])
def test_the_search_finds_nothing_else(source: str) -> None:
    assert list(_dangers(source)) == []
