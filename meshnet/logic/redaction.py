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
_URL = re.compile(r"""(?P<name>://[^\s/:@"']*:)(?P<value>[^\s/@"']+)(?=@)""")
_NAME = r"""[\w-]*(?:password|passwd|passphrase|psk|secret|token|authorization
            |(?:api|private|shared|fastopen)[_-]?key)"""
_BARE = r"""(?:[^\s"',;{}\[\]\\]
              |\\(?!\\{0,14}["'])  # not what begins a quote of JSON in JSON
              |,(?=[^\s"',;{}\[\]\\]))"""
_VALUE = rf"""(?P<value>"(?:[^"\\]|\\.)+"
              |'[^']+'
              |(?P<quote>\\{{1,15}}["'])(?:(?!(?<!\\)(?P=quote)).)+(?<!\\)(?P=quote)  # JSON in JSON
              |(?:(?:bearer|basic)[ \t]+)?(?!(?:null|true|false)(?!{_BARE})){_BARE}+)"""
_NAMED = re.compile(
    # `password = ...`, `"client_secret": "..."`, `--token=...`
    rf"(?P<name>(?<![\w-]){_NAME}(?P<end>\\{{0,15}}[\"'])?[ \t]*[=:][ \t]*){_VALUE}",
    re.IGNORECASE | re.VERBOSE,
)
_FLAG = re.compile(
    rf"(?P<name>(?<![\w-])--{_NAME}[ \t]+)(?!-){_VALUE}",  # `--password ...`
    re.IGNORECASE | re.VERBOSE,
)
_QUOTE = re.compile(r"""\\*["']""")


def redacted(text: str) -> str:
    """Private keys, our tokens, passwords in URLs, and the values of what is called a password, a
    secret, a token or a key, each replaced by a mark. Names, addresses, labels and certificates
    stay."""
    text = _PRIVATE_KEY.sub(REMOVED, text)
    text = _TOKEN.sub(REMOVED, text)
    for named in (_URL, _NAMED, _FLAG):
        text = named.sub(_without_value, text)
    return text


def _without_value(found: re.Match[str]) -> str:
    """JSON stays JSON: what was quoted is, and so is what has a quoted name."""
    begin = _QUOTE.match(found["value"])
    quote = begin[0] if begin else found.groupdict().get("end") or ""
    return f"{found['name']}{quote}{REMOVED}{quote}"
