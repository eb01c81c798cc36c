"""What must not leave this process in a message: credentials, and characters that a terminal obeys.

`redacted` is applied where text is born that goes anywhere (every error's message, what a run writes about itself),
`visible` where text meets a terminal or a log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    pass


SECRET_VARIABLES: Final = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "RAY_AUTH_TOKEN",
)
"""Variables of the environment whose values are nobody else's business."""


MASK: Final = "***"


SHORTEST_SECRET: Final = 8
"""Characters; a shorter value is an ordinary word too often, and protects nothing."""


_USER_IN_URL: Final = re.compile(r"(https?://)[^\s\"'`]*@", re.IGNORECASE)


_SIGNED_QUERY: Final = re.compile(
    r"([?&](?:X-Amz-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|Signature|sig|(?:access_)?token)=)[^&#\s\"'`]+",
    re.IGNORECASE,
)


_OBEYED: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters, what turns or hides the text around it, separators of lines, and bytes that are no UTF-8."""


def redacted(text: str) -> str:
    """The text without credentials: those in addresses, and this process's own wherever they stand."""
    text = _USER_IN_URL.sub(rf"\1{MASK}@", text)
    text = _SIGNED_QUERY.sub(rf"\1{MASK}", text)
    for secret in _secrets():
        text = text.replace(secret, MASK)
    return text


def visible(text: str) -> str:
    """The redacted text for a terminal or a log: nothing in it moves the cursor, turns text around, or hides.

    Further lines are marked as such, so that a file's name cannot pass for a line of ours.
    """
    return _OBEYED.sub(_escape, redacted(text)).replace("\n", "\n  | ")


def _secrets() -> Iterator[str]:
    for name in SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= SHORTEST_SECRET:
            yield value
            yield quote(value, safe="")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def utf8_text(value: str) -> str:
    """A file name as text that Arrow takes: bytes that are no UTF-8 become ``\\\\xNN``."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
