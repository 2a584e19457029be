"""Settings of the documentation; CONTRIBUTING.md says how to build it."""

from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.writers.html5 import HTML5Translator

import circuitry

ROOMS = sorted(path.parent.name for path in Path(circuitry.__file__).parent.glob("*/__init__.pyi"))
HOMES = {name: f"circuitry.{room}" for room in ROOMS for name in dir(import_module(f"circuitry.{room}"))}
"""Room of every public name; no name is in two."""

project = "circuitry"
author = copyright = "The circuitry authors"
version = release = circuitry.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
default_role = "py:obj"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # bars of progress and hints of libraries

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "groupwise"
autodoc_preserve_defaults = True

toc_object_entries_show_parents = "hide"
suppress_warnings = ["ref.python"]  # names of axes in shapes, such as "images units", look like names
html_math_renderer = "mathml"

html_theme = "pydata_sphinx_theme"
html_title = "circuitry"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_show_sourcelink = False
html_sidebars = {"*": [], "*/*": ["sidebar-nav-bs"]}  # pages by themselves have no section to navigate
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 1,
    "header_links_before_dropdown": 3,
    "footer_start": ["copyright"],
    "footer_end": [],
}


def say_no_type(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Keep napoleon from reading what stands before a colon in the text of a field as its type."""
    if what in ("attribute", "property"):
        lines.insert(0, "")


def link_to_room(app: Sphinx, env: BuildEnvironment, node: nodes.Element, shown: nodes.Element) -> Any:
    """Link a public name that is written without its room."""
    name = node.get("reftarget", "").removeprefix("circuitry.")
    home = HOMES.get(name.partition(".")[0])
    if node.get("refdomain") != "py" or home is None:
        return None
    found = env.domains.python_domain.resolve_any_xref(env, node["refdoc"], app.builder, f"{home}.{name}", node, shown)
    return found[0][1] if found else None


def write_formula(self: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    self.body.append(f"<p>{formula}</p>" if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect what mends docstrings, links and formulas."""
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("autodoc-process-docstring", say_no_type, priority=400)
    app.connect("missing-reference", link_to_room)
