"""Fill the templates of the pages. Everything is escaped, and a page can load and run nothing but its own parts."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from posebatch.core.redaction import visible
from posebatch.report.pages.packing import script_json

_FOLDER: Final = files("posebatch.report.pages") / "templates"


def filled(template: str, script: str, **context: Any) -> str:
    """The page that a template makes of a context, with its style and the script ``script``."""
    code = _text(script)
    return (
        _environment()
        .get_template(template)
        .render(
            style=Markup(_text("pages.css")),
            script=Markup(code),
            policy=content_policy(code),
            **context,
        )
    )


def content_policy(script: str) -> str:
    """The content security policy of a page: only this script runs, and nothing is fetched, wherever text came from."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["script_json"] = lambda value: Markup(script_json(value))
    environment.filters["visible"] = lambda text: visible(text).replace("\n  | ", " ")
    environment.filters["count"] = lambda number: f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    return environment


@cache
def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
