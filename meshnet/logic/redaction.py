"""What leaves a node for somebody else's eyes, without its secrets."""

from __future__ import annotations

import re

REMOVED = "[removed]"

_PRIVATE_KEY = re.compile(
    # the line ends of a PEM may be written as `\n`, as in JSON; a tail may be cut off
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY)-----.*?(?:-----END (?P=kind)-----|\Z)",
    re.DOTALL,
)
_TOKEN = re.compile(r"\bmnt1\.[A-Za-z0-9_=.-]+")
_NAMED = re.compile(
    # `password = ...`, `"client_secret": "..."`, `--token=...`
    r"""(?P<name>[\w-]*(?:password|passwd|secret|token|(?:api|private|fastopen)[_-]?key)["']?
                 \s*[=:]\s*)
        (?P<value>"(?:[^"\\]|\\.)+"|'[^']+'|(?!(?:null|true|false)\b)[^\s"',;{}\[\]]+)""",
    re.IGNORECASE | re.VERBOSE,
)


def redacted(text: str) -> str:
    """Private keys, our tokens, and the values of what is called a password, a secret, a token
    or a key, each replaced by a mark. Names, addresses, labels and certificates stay."""
    text = _PRIVATE_KEY.sub(REMOVED, text)
    text = _TOKEN.sub(REMOVED, text)
    return _NAMED.sub(_without_value, text)


def _without_value(found: re.Match[str]) -> str:
    value = found["value"]
    quote = value[0] if value[0] in "\"'" else ""
    return f"{found['name']}{quote}{REMOVED}{quote}"
