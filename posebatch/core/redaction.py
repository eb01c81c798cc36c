"""Make text safe to show: mask credentials, and escape characters that control a terminal.

`redacted` masks credentials in text that may leave the process: messages of errors, files of a run. `visible` also
escapes control characters, for text that goes to a terminal or a log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

SECRET_VARIABLES: Final = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "RAY_AUTH_TOKEN",
)
"""Environment variables with secret values."""


MASK: Final = "***"


SHORTEST_SECRET: Final = 8
"""Characters. A shorter value is not masked: it could be an ordinary word, and it protects nothing."""


_USER_IN_URL: Final = re.compile(r"(https?://)[^\s\"'`]*@", re.IGNORECASE)


_SIGNED_QUERY: Final = re.compile(
    r"([?&](?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|(?:access_)?token)=)[^&#\s\"'`]+",
    re.IGNORECASE,
)


_CONTROL: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters, line separators, characters that reorder or hide text, and bytes that are not UTF-8."""


def redacted(text: str) -> str:
    """The text with credentials masked: those in URLs, and the secrets of this process anywhere."""
    text = _USER_IN_URL.sub(rf"\1{MASK}@", text)
    text = _SIGNED_QUERY.sub(rf"\1{MASK}", text)
    for secret in _secrets():
        text = text.replace(secret, MASK)
    return text


def visible(text: str) -> str:
    """The redacted text with control characters escaped, for a terminal or a log.

    Lines after the first are marked with ``|``, so that a file name cannot imitate a line of output.
    """
    return _CONTROL.sub(_escape, redacted(text)).replace("\n", "\n  | ")


def _secrets() -> Iterator[str]:
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_SECRET:
            yield value
            yield quote(value, safe="")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte of a file name that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def utf8_text(value: str) -> str:
    """A file name as valid UTF-8, which Arrow requires. Invalid bytes become ``\\\\xNN``."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
