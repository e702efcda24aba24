"""Files that belong to the product but are not Python: board tables and runtime sources.

In a source tree (also when installed editable) they lie beside the package; a wheel carries copies inside
``mcuq/_product`` (see ``setup.py``).
"""

from __future__ import annotations

from pathlib import Path

from mcuq.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]
_ROOTS = (_PACKAGE.parent, _PACKAGE / "_product")


def product_dir(name: str) -> Path:
    """Folder ``boards`` or ``runtime_c`` of the product.

    Raises:
        UsageError: the installation lacks it.
    """
    for root in _ROOTS:
        folder = root / name
        # A stranger's folder of the same name beside an installed package must not be taken for ours.
        if folder.is_dir() and (root == _ROOTS[1] or (root / "pyproject.toml").is_file()):
            return folder
    raise UsageError(f"the folder {name} of mcuq was not found beside or inside {_PACKAGE}; reinstall mcuq")


def product_file(*parts: str) -> Path:
    """A file of the product, for example ``product_file("runtime_c", "src", "conv2d.c")``.

    Raises:
        UsageError: there is no such file.
    """
    path = product_dir(parts[0]).joinpath(*parts[1:])
    if not path.is_file():
        raise UsageError(f"the file {'/'.join(parts)} of mcuq was not found in {path.parent}; reinstall mcuq")
    return path


def product_text(name: str) -> str:
    """Text of a data file that lies beside this module.

    Raises:
        UsageError: there is no such file.
    """
    try:
        return Path(__file__).with_name(name).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the file {name} of mcuq cannot be read ({error.strerror}); reinstall mcuq") from error
