"""The page itself: one HTML file that holds all of its code. No torch.

Modules are in an import map of data URLs, since a page that was opened from disk may not load modules from files. The
content security policy lets nothing run but the scripts that bear the page's nonce, and what they load themselves. The
page that is served is the same, and may ask its own server, too.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from importlib.resources import files

import jinja2

PAGE = files("circuitry.explorer") / "page"
VENDORED = {"preact": "preact.js", "preact/hooks": "preact-hooks.js", "htm": "htm.js"}
"""Modules by other authors, by the name that they are imported by; `vendor/SHA256SUMS` holds their checksums."""
_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("circuitry.explorer", "page"), autoescape=True
)


def page_modules() -> dict[str, str]:
    """Return the code of all modules by the name that they are imported by."""
    modules = {name: PAGE / "vendor" / file for name, file in VENDORED.items()}
    for file in sorted(PAGE.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".js"):
            modules[f"circuitry/{file.name}"] = file
    return {name: file.read_text(encoding="utf-8") for name, file in modules.items()}


def render_page(title: str, served: Sequence[str] = ()) -> str:
    """Return the page with all of its code; ``served`` has the services of its server: ``notes``, ``live``."""
    code = {name: _data_url(text) for name, text in page_modules().items()}
    import_map = {"imports": code}
    # A digest of the page in place of a random number, so that two exports are equal.
    nonce = hashlib.sha256(repr((title, import_map)).encode()).hexdigest()[:32]
    template = _TEMPLATES.get_template("explorer.html.jinja")
    return template.render(
        title=title,
        nonce=nonce,
        import_map=import_map,
        served=served,
    )


def _data_url(code: str) -> str:
    # The map of a vendored file is not in the package, and a browser would look for it.
    code = re.sub(r"^//# sourceMappingURL=.*\n?", "", code, flags=re.MULTILINE)
    encoded = base64.b64encode(code.rstrip("\n").encode()).decode("ascii")
    return f"data:text/javascript;base64,{encoded}"
