"""Settings of the documentation; CONTRIBUTING.md says how to build it."""

import inspect
import re
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer
from sphinx.writers.html5 import HTML5Translator

import circuitry

ROOMS = sorted(
    path.parent.name for path in Path(circuitry.__file__).parent.glob("*/__init__.pyi")
)
HOMES = {
    name: f"circuitry.{room}"
    for room in ROOMS
    for name in dir(import_module(f"circuitry.{room}"))
}
"""Room of every public name; no name is in two."""

project = "circuitry"
author = copyright = "The circuitry authors"
version = release = circuitry.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
default_role = "py:obj"
highlight_language = "none"

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 180
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # bars of progress and hints of libraries

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True

add_module_names = False
toc_object_entries_show_parents = "hide"
suppress_warnings = [
    "ref.python"
]  # names of axes in shapes, such as "images units", look like names
html_math_renderer = "mathml"

html_theme = "pydata_sphinx_theme"
html_title = "circuitry"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_show_sourcelink = False
html_use_index = html_domain_indices = False
html_sidebars = {
    "*": [],
    "*/*": ["sidebar-nav-bs"],
}  # pages by themselves have no section to navigate
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 1,
    "header_links_before_dropdown": 5,
    "footer_start": ["copyright"],
    "footer_end": [],
}


def read_annotations(app: Sphinx) -> None:
    """Describe a field of settings by the help of its option, and show the types of fields without conditions."""
    public = (getattr(import_module(room), name) for name, room in HOMES.items())
    for kind in (one for one in public if isinstance(one, type) and is_dataclass(one)):
        texts = ModuleAnalyzer.for_module(kind.__module__).find_attr_docs()
        hints, plain = get_type_hints(kind, include_extras=True), get_type_hints(kind)
        for field in kind.__annotations__:
            helps = [
                mark.help
                for mark in getattr(hints[field], "__metadata__", ())
                if getattr(mark, "help", None)
            ]
            if helps:
                texts.setdefault((kind.__qualname__, field), [*helps, ""])
            kind.__annotations__[field] = plain[field]


def text_of_value(room: ModuleType, name: str) -> str:
    """Return what stands below a value where it is defined, what its annotation wants, or the value itself."""
    (module,) = re.findall(
        rf"^from \.([\w.]+) import {name} as",
        Path(f"{room.__file__}i").read_text(),
        re.MULTILINE,
    )
    if (
        text := ModuleAnalyzer.for_module(f"{room.__name__}.{module}")
        .find_attr_docs()
        .get(("", name))
    ):
        return " ".join(text)
    marks = getattr(value := getattr(room, name), "__metadata__", ())
    said = [
        str(text)
        for of in ("help", "wanted")
        for mark in marks
        if (text := getattr(mark, of, None))
    ]
    return said[0][:1].upper() + said[0][1:] if said else f"``{value!r}``"


def list_names(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Begin the page of a room with its classes, functions and values, and the first sentence of each."""
    if what != "module":
        return
    rows: dict[str, list[str]] = {"Class": [], "Function": [], "Value": []}
    for public in dir(obj):
        one = getattr(obj, public)
        if inspect.ismodule(one):
            continue
        function = inspect.isfunction(inspect.unwrap(one)) if callable(one) else False
        kind = "Class" if isinstance(one, type) else "Function" if function else "Value"
        text = (
            text_of_value(obj, public) if kind == "Value" else inspect.getdoc(one) or ""
        )
        sentence = (
            re.split(r"(?<![ .])\. ", " ".join(text.split("\n\n")[0].split()))[
                0
            ].rstrip(".:")
            + "."
        )
        shown = (
            f"``{public}``"
            if kind == "Value"
            else f":py:obj:`{public} <{name}.{public}>`"
        )
        rows[kind] += [f"   * - {shown}", f"     - {sentence}"]
    for kind, of_kind in rows.items():
        if of_kind:
            lines += [
                "",
                ".. list-table::",
                "   :class: names",
                "   :header-rows: 1",
                "",
            ]
            lines += [f"   * - {kind}", "     -", *of_kind, ""]


def name_bases(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Say which public classes have the other fields of settings."""
    bases = [
        base.__name__
        for base in getattr(obj, "__bases__", ())
        if what == "class" and base.__name__ in HOMES
    ]
    if bases and is_dataclass(obj):
        lines += [
            "",
            f"Other fields are those of {' and '.join(f':py:obj:`{base}`' for base in bases)}.",
            "",
        ]


def say_no_type(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep napoleon from reading what stands before a colon in the text of a field or a return as its type."""
    returns = [
        place + 1 for place, line in enumerate(lines) if line.strip() == "Returns:"
    ]
    for place in [0] if what in ("attribute", "property") else returns:
        indent = " " * (len(lines[place]) - len(lines[place].lstrip())) if place else ""
        lines.insert(
            place, f"{indent}\\"
        )  # says nothing; an empty line would be passed over


def show_options(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Show an option as code, whose hyphens would become a dash."""
    if what == "attribute":
        lines[:] = [
            re.sub(r"(?<![\w`-])--[a-z-]+", r"``\g<0>``", line) for line in lines
        ]


def link_to_room(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, shown: nodes.Element
) -> Any:
    """Link a public name that is written without its room."""
    name = node.get("reftarget", "").removeprefix("circuitry.")
    home = HOMES.get(name.partition(".")[0])
    if node.get("refdomain") != "py" or home is None:
        return None
    found = env.domains.python_domain.resolve_any_xref(
        env, node["refdoc"], app.builder, f"{home}.{name}", node, shown
    )
    return found[0][1] if found else None


def keep_percents(app: Sphinx, page: nodes.document) -> None:
    """Keep a number and its percent sign in one line."""
    for text in list(page.findall(nodes.Text)):
        if not isinstance(
            text.parent, nodes.literal | nodes.literal_block | nodes.math
        ):
            text.parent.replace(
                text, nodes.Text(re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text))
            )


def write_formula(self: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers draw without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext(), as_block=block)
    self.body.append(f"<p>{formula}</p>" if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Connect what mends docstrings, links and formulas."""
    app.add_html_math_renderer("mathml", (write_formula, None), (write_formula, None))
    app.connect("builder-inited", read_annotations)
    app.connect("autodoc-process-docstring", say_no_type, priority=400)
    app.connect("autodoc-process-docstring", show_options)
    app.connect("autodoc-process-docstring", list_names)
    app.connect("autodoc-process-docstring", name_bases)
    app.connect("missing-reference", link_to_room)
    app.connect("doctree-read", keep_percents)
