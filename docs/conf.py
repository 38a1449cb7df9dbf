"""How the documentation site is built: `make docs`, offline, every warning an error.

Pages are Markdown (MyST). The reference is written from docstrings at build time, one page for each package,
so that none is forgotten. Nothing is loaded from elsewhere: no web fonts, no scripts, no inventories.
"""

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "src" / "headstart"
sys.path.insert(0, str(PACKAGE.parent))

from headstart import __version__  # noqa: E402 (found through the line above where nothing is installed)

project = "Headstart"
author = "Headstart"
copyright = "Headstart contributors, Apache-2.0"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

smartquotes = False  # two hyphens in prose are an option, and stay two

html_theme = "furo"
html_title = "Headstart"
html_static_path = ["_static"]
html_css_files = ["headstart.css"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "friendly"
pygments_dark_style = "github-dark"
# A field's bare name may be that of several classes.
suppress_warnings = ["ref.python"]
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

# Single backticks in docstrings name things: a link where the thing is documented, plain code elsewhere.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Signatures are read, nothing is computed: what takes seconds to import need not be there to build the pages.
autodoc_mock_imports = [
    "torch",
    "torchvision",
    "timm",
    "tensorflow",
    "keras",
    "tf2onnx",
    "mlflow",
    "tensorboard",
]

_COMMANDS = "cli"
"""Has a page of its own, written from the commands."""

_INSIDE = {
    "backbones": ("runtimes", "staged", "tracing", "openvino"),
    "classifier": ("onnx_graph",),
    "data": ("sources", "images", "preprocess", "dataset", "duplicates", "splits", "checks"),
    "heads": ("metrics",),
    "lesson": (
        "engine", "engine.library", "engine.placeholders", "engine.attempts", "engine.progress",
        "engine.scores", "engine.review", "engine.badges", "engine.pictures", "engine.interchange",
        "engine.moodle", "engine.gift", "engine.statements", "engine.terminal", "experiments",
    ),
    "costs": ("formulas",),
    "training": ("planning", "finetune", "choosing", "evaluation"),
    "serving": ("server", "models", "limits"),
    "web": ("app", "jobs", "server"),
}  # fmt: skip
"""Modules of a package that pages elsewhere send readers to, beside what it itself offers."""


def _packages() -> list[str]:
    """Every module and package right under `headstart`, but for the commands."""
    names = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    return sorted(names - {"__init__", "__main__", _COMMANDS})


def _write_reference(app: Sphinx) -> None:
    """One page for each package, rewritten only where it changed, so that a second build is quick."""
    folder = HERE / "reference" / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    pages = {f"{package}.rst": _package_page(package) for package in _packages()}
    for stale in {path.name for path in folder.iterdir()} - set(pages):
        (folder / stale).unlink()
    for name, text in pages.items():
        page = folder / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def _package_page(package: str) -> str:
    modules = [f"headstart.{package}"]
    modules += [
        f"headstart.{package}.{inner}"
        for inner in _INSIDE.get(package, ())
        if find_spec(f"headstart.{package}.{inner}")
    ]
    heading = f"{package}\n{'=' * len(package)}\n"
    return f"{heading}\n" + "\n".join(map(_module_entry, modules))


def _module_entry(module: str) -> str:
    """What a module offers and defines; what it hands on from another package stands on that one's page."""
    entry = f".. automodule:: {module}\n   :members:\n"
    package = PACKAGE.joinpath(*module.split(".")[1:])
    if not package.is_dir():
        return entry
    trees = {path: ast.parse(path.read_text(encoding="utf-8")).body for path in package.rglob("*.py")}
    imported = {
        alias.asname or alias.name
        for node in trees[package / "__init__.py"]
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    defined = {name for tree in trees.values() for node in tree for name in _names_of(node)}
    handed_on = sorted(imported - defined)
    return entry + (f"   :exclude-members: {', '.join(handed_on)}\n" if handed_on else "")


def _names_of(node: ast.stmt) -> list[str]:
    """What a statement of a module defines."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _indented_is_literal(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Indented after an empty line means as it stands, as in Markdown: trees, formulas and commands."""
    found: list[str] = []
    literal = False
    for number, line in enumerate(lines):
        indented = line.startswith("    ")
        opens = indented and not literal and number > 0 and not lines[number - 1].strip()
        if opens and found and any(found) and not _is_nested(found):
            found += ["::", ""]
            literal = True
        elif line.strip() and not indented:
            literal = False
        found.append(line)
    lines[:] = found


def _is_nested(before: list[str]) -> bool:
    """Whether the last written line belongs to a list, a field or a section whose text is indented anyway."""
    last = next(line for line in reversed(before) if line.strip())
    return bool(re.match(r"\s|[-*:.]|\d+\.", last)) or last.rstrip().endswith("::")


def _skip_what_others_document(
    app: Sphinx, what: str, name: str, member: object, skip: bool, options: Any
) -> bool | None:
    """Methods that scikit-learn adds to an estimator link to its own documentation."""
    return True if name.startswith("set_") and name.endswith("_request") else None


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", _write_reference)
    app.connect("autodoc-process-docstring", _indented_is_literal)
    app.connect("autodoc-skip-member", _skip_what_others_document)
