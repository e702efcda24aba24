"""Copies the product's files that are not Python into the wheel; everything else is in pyproject.toml."""

from pathlib import Path
from shutil import copytree, rmtree

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithProductFiles(build_py):
    """Adds ``mcuq/_product/{boards,runtime_c}``, which ``mcuq.target.files`` reads."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for name in ("boards", "runtime_c"):
            target = Path(self.build_lib, "mcuq", "_product", name)
            rmtree(target, ignore_errors=True)
            copytree(ROOT / name, target)


setup(cmdclass={"build_py": BuildWithProductFiles})
