"""An HTML page that is one file: its style, its script and its data in it, and nothing fetched from anywhere.

Its content policy lets no script run but the one it was written with, whatever the data hold.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

STYLES = ("page.css", "report.css")
SCRIPTS = ("plotting.js", "charts.js", "report.js")


def page(title: str, parts: Sequence[str], data: Any = None) -> str:
    """A whole page; `parts` are its pieces of HTML, below the title. With `data` it has the report's script, too."""
    style, script = "".join(map(_shipped, STYLES)), "" if data is None else _one_script()
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; "
        f"script-src {_quoted_digest(script)}; base-uri 'none'; form-action 'none'"
    )
    head = "".join(
        (
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{html.escape(title)}</title>",
            '<link rel="icon" href="data:,">',
            f"<style>{style}</style>",
        )
    )
    main = "\n".join(parts)
    body = f"<header><h1>{html.escape(title)}</h1></header>\n<main>\n{main}\n</main>\n"
    if data is not None:
        body += f'<script type="application/json" id="data">{in_script(data)}</script>\n'
        body += f'<script type="module">{script}</script>\n'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}</body></html>\n'


def in_script(data: Any) -> str:
    """JSON in which nothing is markup, so that no text in it can end the block that it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def figure(caption: str, svg: Path) -> str:
    """A figure as a piece of HTML, the picture in it."""
    data = base64.b64encode(svg.read_bytes()).decode("ascii")
    text = html.escape(caption)
    image = f'<img alt="{text}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def section(title: str, table: str, below: str = "") -> str:
    """A table, in HTML, below its title, and what stands below it."""
    return f'<section class="card"><h2>{html.escape(title)}</h2><div class="wide">{table}</div>{below}</section>'


def _one_script() -> str:
    """The modules of the page as one: what one takes from another stands above it."""
    whole = "".join(map(_shipped, SCRIPTS))
    return re.sub(r"^export ", "", re.sub(r"^import .*\n", "", whole, flags=re.M), flags=re.M)


def _shipped(name: str) -> str:
    return (files(__package__) / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _quoted_digest(script: str) -> str:
    return f"'{_digest(script)}'" if script else "'none'"
