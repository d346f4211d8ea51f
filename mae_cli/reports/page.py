"""An HTML page of headings and preformatted text, in one file.

Place in the flow: `mae run` writes `report.html` with it. Contract: pure; all text is escaped and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def html_page(title: str, sections: Sequence[tuple[str, str]]) -> str:
    """One self-contained page: a heading and preformatted text per section, everything escaped."""
    style = "body{font:16px/1.5 sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}pre{overflow-x:auto}"
    body = "".join(f"<h2>{escape(heading)}</h2><pre>{escape(text)}</pre>" for heading, text in sections)
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body><h1>{escape(title)}</h1>{body}</body></html>\n'
