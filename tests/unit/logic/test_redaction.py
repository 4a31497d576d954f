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
        ("net.ipv4.tcp_fastopen_key = 1f-2e,3d-4c", "net.ipv4.tcp_fastopen_key = [removed]"),
        ("token: Bearer abc.def", "token: [removed]"),
        ('curl -H "Authorization: Bearer x" h', 'curl -H "Authorization: [removed]" h'),
        ("--password hunter2 --id 3", "--password [removed] --id 3"),
        ("https://user:pw@h:2379/x", "https://user:[removed]@h:2379/x"),
        ("passphrase=a, n=1", "passphrase=[removed], n=1"),
        ('{"psk":"a","n":1}', '{"psk":"[removed]","n":1}'),
        ('{"secret":12,"n":1}', '{"secret":"[removed]","n":1}'),
        ("token=true-secret", "token=[removed]"),
        ("token=null,void", "token=[removed]"),
    ],
)
def test_tokens_and_what_is_called_a_secret_lose_their_values(text: str, without: str) -> None:
    assert redacted(text) == without


SECRETS = ("hunter2", 'a " b', "a \\ b", "a' b", "true", 'x"')


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_json_stays_json_also_as_text_in_json(secret: str, depth: int) -> None:
    def nested(value: str) -> str:
        text = json.dumps({"password": value, "n": 5, "labels": {"app": "web"}})
        for _ in range(depth - 1):
            text = json.dumps({"last-applied": text, "n": None})
        return text

    assert redacted(nested(secret)) == nested(REMOVED)


@pytest.mark.parametrize(
    "text",
    [
        CERTIFICATE,
        '{"key": {"address": "10.1.0.9"}, "identity": 65836}',
        '{"token": null, "tokens": ["a"]}',
        "k8s:app=token-issuer",
        "peer_key = 5f2c",
        '{"token":true,"n":1}',
        '{"last-applied": "{\\"token\\": null, \\"password\\": \\"\\", \\"n\\": 5}"}',
        "password = false\nlifetime = 86400\nmasquerade = true",
        "https://[fd00::1]:4243/v3 https://h:2379/a@b",
        "`meshnet cluster token --signer`",
        "net.ipv4.tcp_fastopen_key = \nnet.ipv4.tcp_fin_timeout = 60",
    ],
)
def test_the_rest_stays_as_it_is(text: str) -> None:
    assert redacted(text) == text
