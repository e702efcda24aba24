"""Puts this folder on the path of every test, for ``tests/builders.py``; finds a data folder beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

# Tests on published data run where it lies in $MCUQ_DATA or in a folder next to the checkout, else they skip.
_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"
if not os.environ.get("MCUQ_DATA") and _BESIDE.is_dir():
    os.environ["MCUQ_DATA"] = str(_BESIDE)

# Networks under test are tiny: threads of OpenMP would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
