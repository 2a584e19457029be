"""Render the page of the explorer: one HTML file that contains all of its code. Does not import torch.

A page that was opened from disk may not load modules from files. Therefore its modules are data URLs in an import map.
The content security policy allows only scripts with the page's nonce, and the scripts that these load. A page that
`serve_explorer` serves has the same code, and may also send requests to its own server.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

import jinja2

PAGE = files("circuitry.explorer") / "page"
VENDORED = {"preact": "preact.js", "preact/hooks": "preact-hooks.js", "htm": "htm.js"}
"""Files of modules by other authors, by the name in import statements. `vendor/SHA256SUMS` holds their checksums."""
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("circuitry.explorer", "page"), autoescape=True
)


def page_modules() -> dict[str, str]:
    """Return the code of all modules, by the name that import statements use."""
    modules = {name: PAGE / "vendor" / file for name, file in VENDORED.items()}
    for file in sorted(PAGE.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".js"):
            modules[f"circuitry/{file.name}"] = file
    return {name: file.read_text(encoding="utf-8") for name, file in modules.items()}


def render_page(title: str, served: Sequence[str] = ()) -> str:
    """Return the HTML of the page with all of its code.

    Args:
        title: Title of the page.
        served: Services that the page's server offers: ``notes``, ``live``, both, or neither (the default, for a page
            on disk).
    """
    code = {name: _data_url(text) for name, text in page_modules().items()}
    import_map = {"imports": code}
    # The nonce is a digest of the page instead of a random number, so that two exports of the same data are equal.
    nonce = hashlib.sha256(repr((title, import_map)).encode()).hexdigest()[:32]
    template = _TEMPLATES.get_template("explorer.html.jinja")
    return template.render(
        title=title,
        nonce=nonce,
        import_map=import_map,
        served=served,
    )


def _data_url(code: str) -> str:
    # Remove the references of vendored files to their source maps, which are not in this package.
    code = re.sub(r"^//# sourceMappingURL=.*\n?", "", code, flags=re.MULTILINE)
    encoded = base64.b64encode(code.rstrip("\n").encode()).decode("ascii")
    return f"data:text/javascript;base64,{encoded}"
