"""The requirement files keep what the README promises of them: pinned, hashed, without any address, light, permissive.

They are read as text and compared with pyproject.toml and with what is installed here; no index is asked.
"""

import re
import tomllib
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILES = ["requirements.txt", "requirements-dev.txt", "requirements-dist.txt", "requirements-audit.txt"]

# The promise of the README. Without a limit nobody notices one package that brings twenty.
INSTALLED_MEGABYTES = 195
PINS = {
    "requirements.txt": 79,
    "requirements-dev.txt": 155,
    "requirements-dist.txt": 45,
    "requirements-audit.txt": 55,
}

PIN = re.compile(r"(?P<name>[a-z0-9.-]+)==(?P<version>\S+)(?: ; (?P<marker>.+))?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
# Their metadata says nothing, so somebody read the LICENSE file inside the distribution.
READ_BY_HAND = {"pysqlite3": "zlib"}
# MPL holds no "GPL", and a text that only calls itself "GPL-compatible" (as Python's own licence does) is not one.
GPL_FAMILY = re.compile(r"\b[AL]?GPL(?!-compatible)|General Public Licen[cs]e", re.IGNORECASE)


@dataclass(frozen=True)
class Pin:
    """One pinned distribution; `marker` is None where it goes onto every platform."""

    name: str
    version: str
    marker: str | None
    hashes: tuple[str, ...]

    def wanted_here(self) -> bool:
        return self.marker is None or Marker(self.marker).evaluate()


def read(file: str) -> list[Pin]:
    """The pins of a file; ValueError on a line that is neither a pin with its hashes, a comment nor `--only-binary`."""
    pins = []
    for line in (ROOT / file).read_text().replace("\\\n", " ").splitlines():
        if not line or line.startswith("#") or line == "--only-binary :all:":
            continue
        requirement, *hashes = re.split(r" +(?=--hash=)", line.strip())
        pin = PIN.fullmatch(requirement.strip())
        if pin is None or not all(HASH.fullmatch(each) for each in hashes):
            raise ValueError(f"{file}: not a pin with hashes: {line[:120]}")
        pins.append(Pin(pin["name"], pin["version"], pin["marker"], tuple(hashes)))
    return pins


def direct(*groups: str) -> list[Requirement]:
    """The dependencies that pyproject.toml names for this platform, in these groups; `project` are those of the service, `redis`
    is an extra."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = pyproject["project"]
    known = {"project": project["dependencies"], **project["optional-dependencies"], **pyproject["dependency-groups"]}
    named = [line for group in groups for line in known[group]]
    requirements = [Requirement(each) for each in named]
    return [each for each in requirements if each.marker is None or each.marker.evaluate()]


def installed(pin: Pin) -> Distribution:
    """The distribution that the pin stands for; fails where it is missing or of another version."""
    found = distribution(pin.name)
    assert found.version == pin.version, f"{pin.name}: {found.version} is installed, {pin.version} is pinned"
    return found


def licences(found: Distribution) -> list[str]:
    """What its metadata says of its licence, in any of the three fields where it may; often in none but one."""
    fields = [*(found.metadata.get_all("License-Expression") or []), *(found.metadata.get_all("License") or [])]
    classifiers = found.metadata.get_all("Classifier") or []
    return [*fields, *(each for each in classifiers if each.startswith("License ::"))]


@pytest.mark.parametrize("file", FILES)
def test_every_pin_has_a_hash(file: str) -> None:
    assert [pin.name for pin in read(file) if not pin.hashes] == []


@pytest.mark.parametrize("file", FILES)
def test_no_address_and_no_path_is_written_down(file: str) -> None:
    text = (ROOT / file).read_text()
    assert "://" not in text
    assert not re.search(r"--(extra-)?index-url|--find-links|^-[if] |(^|\s)/\w+/", text, re.MULTILINE)


@pytest.mark.parametrize("file", FILES)
def test_nothing_needs_a_compiler(file: str) -> None:
    assert "--only-binary :all:" in (ROOT / file).read_text().splitlines()


@pytest.mark.parametrize("file", FILES)
def test_the_number_of_pins_stays_small(file: str) -> None:
    assert 0 < len(read(file)) <= PINS[file]


def test_the_development_file_holds_all_that_running_needs() -> None:
    assert set(read("requirements.txt")) <= set(read("requirements-dev.txt"))


@pytest.mark.parametrize(
    ("file", "groups"),
    [
        ("requirements.txt", ("project", "redis", "test")),
        ("requirements-dev.txt", ("project", "redis", "test", "dev")),
        ("requirements-dist.txt", ("dist",)),
        ("requirements-audit.txt", ("audit",)),
    ],
)
def test_every_direct_dependency_is_pinned_within_its_range(file: str, groups: tuple[str, ...]) -> None:
    pins = {pin.name: pin.version for pin in read(file) if pin.wanted_here()}
    wrong = [
        f"{wanted}: {pins.get(canonicalize_name(wanted.name), 'not pinned')}"
        for wanted in direct(*groups)
        if not wanted.specifier.contains(pins.get(canonicalize_name(wanted.name), "0"), prereleases=True)
    ]
    assert wrong == [], "run `make lock`"


def test_all_that_running_needs_is_installed_and_light() -> None:
    sizes = {}
    for pin in read("requirements.txt"):
        if pin.wanted_here():
            files = installed(pin).files
            assert files, f"{pin.name} does not say which files it has"
            sizes[pin.name] = sum(Path(str(file.locate())).stat().st_size for file in files)
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:5]
    assert sum(sizes.values()) < INSTALLED_MEGABYTES * 1_000_000, f"the largest, in bytes: {largest}"


def test_nothing_that_running_needs_is_of_the_gpl_family() -> None:
    stated = {pin.name: licences(installed(pin)) for pin in read("requirements.txt") if pin.wanted_here()}
    assert {name for name, texts in stated.items() if not texts} <= READ_BY_HAND.keys(), "no licence stated: read it"
    assert {name: texts for name, texts in stated.items() if any(map(GPL_FAMILY.search, texts))} == {}


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("GPL-3.0-or-later", True),
        ("LGPL-2.1-only", True),
        ("AGPLv3", True),
        ("License :: OSI Approved :: GNU Lesser General Public License v3 (LGPLv3)", True),
        ("MIT OR GPL-2.0", True),
        ("MPL-2.0 AND MIT", False),
        ("License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)", False),
        ("PSF-2.0, a GPL-compatible licence", False),
    ],
)
def test_the_licence_check_tells_the_gpl_family_from_others(text: str, refused: bool) -> None:
    assert bool(GPL_FAMILY.search(text)) is refused


def test_the_build_backend_is_the_pinned_one() -> None:
    for place in (ROOT, ROOT / "clients" / "python"):
        (backend,) = tomllib.loads((place / "pyproject.toml").read_text())["build-system"]["requires"]
        assert backend in {str(one) for one in direct("dev")} & {str(one) for one in direct("dist")}
