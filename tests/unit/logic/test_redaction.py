"""Secrets go, and what a maintainer needs stays."""

from __future__ import annotations

import json

import pytest

from meshnet.logic.redaction import REMOVED, redacted

KEY = "-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49\nAgEGCCqG\n-----END PRIVATE KEY-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmg\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize(
    "text",
    [
        KEY,
        KEY.replace("PRIVATE", "EC PRIVATE"),
        json.dumps({"key": CERTIFICATE + KEY}),
        KEY[:60],
    ],
)
def test_private_keys_go_whole_or_cut_off_in_files_and_in_json(text: str) -> None:
    assert "MIGHAg" not in redacted(text)
    assert REMOVED in redacted(text)


def test_what_follows_a_private_key_stays() -> None:
    assert redacted(KEY + CERTIFICATE + KEY) == f"{REMOVED}\n{CERTIFICATE}{REMOVED}\n"


@pytest.mark.parametrize(
    ("text", "without"),
    [
        ("join mnt1.eyJjIjoi-_x9=.q failed", "join [removed] failed"),
        ("password = hunter2", "password = [removed]"),
        ('{"client_secret": "a \\" b", "n": 1}', '{"client_secret": "[removed]", "n": 1}'),
        ("--token=abc --id 3", "--token=[removed] --id 3"),
        ("net.ipv4.tcp_fastopen_key = 1f-2e", "net.ipv4.tcp_fastopen_key = [removed]"),
    ],
)
def test_tokens_and_what_is_called_a_secret_lose_their_values(text: str, without: str) -> None:
    assert redacted(text) == without


@pytest.mark.parametrize(
    "text",
    [
        CERTIFICATE,
        '{"key": {"address": "10.1.0.9"}, "identity": 65836}',
        '{"token": null, "tokens": ["a"]}',
        "k8s:app=token-issuer",
        "peer_key = 5f2c",
    ],
)
def test_the_rest_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text
