"""Small pages within a notebook: the one place that makes an `<iframe srcdoc>`. No torch.

Such a frame is kept when a notebook is exported, and shows the same in JupyterLab, VS Code and on a web page: it holds
a whole page, asks for nothing, and runs no script.
"""

import html

from circuitry.runs.given import checked

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
STYLE = (
    "body{font:13px/1.45 system-ui,sans-serif;margin:8px;color:#222;background:#fff}"
    "table{border-collapse:collapse;margin:6px 0}th,td{padding:1px 7px;text-align:right;font-weight:normal}"
    "thead th{border-bottom:1px solid #999}tbody th{text-align:left}caption{text-align:left;color:#555}"
    "p{margin:3px 0}h4{margin:8px 0 2px}svg{max-width:100%;height:auto}"
    "svg text{font:10px system-ui,sans-serif;fill:#444}"
    "summary{cursor:pointer}.images{display:flex;flex-wrap:wrap;gap:2px 10px}.images img{width:56px;height:56px}"
)


@checked
def notebook_frame(title: str, body: str, *, height: int = 420) -> str:
    """Return a frame with a small page for a notebook.

    Args:
        title: What it shows, plain text; it stands on top, too.
        body: HTML without scripts; texts in it are escaped.
        height: In pixels; what is longer scrolls.
    """
    shown = html.escape(title, quote=False)
    page = (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{shown}</title><style>{STYLE}</style><p>{shown}</p>{body}"
    )
    srcdoc = page.replace("&", "&amp;").replace('"', "&quot;")
    return (
        f'<iframe title="{html.escape(title)}" srcdoc="{srcdoc}" sandbox loading="lazy" '
        f'style="width:100%;height:{height}px;border:1px solid #ccc"></iframe>'
    )
