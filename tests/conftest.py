"""Puts this folder on the path of every test, for ``tests/builders.py``; finds a data folder beside the checkout; keeps
tests together that share what takes long to make."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Tests on published data run where it lies in $MCUQ_DATA or in a folder next to the checkout, else they skip.
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
if not os.environ.get("MCUQ_DATA") and _BESIDE.is_dir():
    os.environ["MCUQ_DATA"] = str(_BESIDE)

# Networks under test are tiny: threads of OpenMP would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is built once serves one process: the tests of the README's example stay together, and the short ones of a
    file; long ones run wherever there is time."""
    for item in items:
        if "example" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("example"))
        elif not item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
