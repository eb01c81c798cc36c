"""The lock of the image: it has what pyproject.toml asks for, each with its hashes, and names no place to load from."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
LOCK = (ROOT / "infra/requirements.lock").read_text()
DOCKERFILE = (ROOT / "infra/Dockerfile").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()

PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
"""A requirement, its version and its hashes."""

PINS = {name: Version(version) for name, version, _ in PIN.findall(LOCK)}

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

EXTRAS = re.findall(r"pip compile pyproject\.toml --extra (\S+)", MAKEFILE)


def test_lock_holds_pins_with_hashes_and_nothing_else() -> None:
    """No address, no index: those of the machine that made it must not become those of the image."""
    rest = [line for line in PIN.sub("", LOCK).splitlines() if line and not re.match(r" *#", line)]
    assert rest == []
    assert "://" not in LOCK
    assert len(PINS) > 50


@pytest.mark.parametrize(
    "wanted", [*PROJECT["dependencies"], *(one for extra in EXTRAS for one in PROJECT["optional-dependencies"][extra])]
)
def test_lock_satisfies_the_requirements_of_the_project(wanted: str) -> None:
    requirement = Requirement(wanted)
    name = canonicalize_name(requirement.name)
    assert name in PINS, "make lock"
    assert requirement.specifier.contains(PINS[name]), f"{wanted}, but {name} {PINS[name]}: make lock"


def test_image_has_the_python_and_the_ray_of_the_lock() -> None:
    (python,) = re.findall(r"^ARG PYTHON_IMAGE=python:([0-9.]+)-slim$", DOCKERFILE, re.MULTILINE)
    assert f"--python-version {python} " in MAKEFILE
    assert PROJECT["requires-python"] == ">=3.11"
    (ray,) = re.findall(r"^ARG RAY_VERSION=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert PINS["ray"] == Version(ray)


def test_image_installs_nothing_that_is_not_in_the_lock() -> None:
    installs = re.findall(r"pip install (.*)", DOCKERFILE)
    assert len(installs) == 2
    assert "--require-hashes" in installs[0]
    assert {"--no-deps", "--no-index", "--no-build-isolation"} <= set(installs[1].split())
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert all(Requirement(one).specifier.contains(PINS[Requirement(one).name]) for one in build)


def test_build_context_has_every_file_that_the_image_copies() -> None:
    sources = " ".join(re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)).split()
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert [name for name in sources if f"!{name}" not in allowed] == []
    assert all((ROOT / name).exists() for name in sources)
