"""Imports point downward, and what need not be loaded is not."""

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import napari_shiftvae

PACKAGE = Path(napari_shiftvae.__file__).parent
QT = {"qtpy", "superqt", "magicgui", "pyqtgraph", "vispy", "PyQt5", "PyQt6", "PySide6"}
CORE = sorted((PACKAGE / "core").glob("*.py"))


def imported_roots(file: Path) -> set[str]:
    """Top-level packages that a file imports, inside its functions too."""
    roots = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("file", CORE, ids=lambda file: file.stem)
def test_core_uses_neither_napari_nor_qt(file: Path) -> None:
    assert not imported_roots(file) & {"napari", *QT}


@pytest.mark.parametrize("name", ["session", "layers"])
def test_state_and_layers_use_no_qt(name: str) -> None:
    file = PACKAGE / f"{name}.py"
    assert not imported_roots(file) & QT


def loaded_after(statement: str) -> set[str]:
    """Top-level packages loaded in a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = {"torch", "napari", "numpy", "scipy", "pandas", "skimage", *QT}
    assert not loaded_after("import napari_shiftvae") & heavy


def test_reading_an_image_loads_no_torch() -> None:
    assert "torch" not in loaded_after("import napari_shiftvae.core.images")


def test_core_imports_without_napari_and_qt() -> None:
    # a None in sys.modules makes an import fail as if nothing were installed
    absent = f"import sys\nfor name in {sorted({'napari', *QT})}: sys.modules[name] = None"
    modules = [f"napari_shiftvae.core.{file.stem}" for file in CORE if file.stem != "__init__"]
    loaded_after(f"{absent}\nimport {', '.join(modules)}")


def test_types_are_published() -> None:
    assert (PACKAGE / "py.typed").is_file()
    assert importlib.util.find_spec("napari_shiftvae") is not None
