"""The rules for names. Every name enters through here, so the rules exist once."""

from __future__ import annotations

import re

from meshnet.errors import ConfigError, InvalidName

_CLUSTER = re.compile(r"^([a-z0-9][-a-z0-9]*)?[a-z0-9]$")
_RFC1123 = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")

CLUSTER_NAME_MAX = 32
"""Cilium's limit (pkg/clustermesh/types)."""
DNS_NAME_MAX = 253
LABEL_MAX = 63
"""RFC 1123 section 2.1, as Kubernetes applies it."""


def cluster_name(text: str) -> str:
    """Check a cluster's name against Cilium's rule."""
    if len(text) > CLUSTER_NAME_MAX:
        raise InvalidName("cluster", text, f"{CLUSTER_NAME_MAX} characters at most")
    if not _CLUSTER.match(text):
        rule = "lower-case letters, digits and '-', first and last a letter or digit"
        raise InvalidName("cluster", text, rule)
    if text == "default":
        raise InvalidName("cluster", text, "'default' is kept by Cilium for clusters without an id")
    return text


def rfc1123_label(kind: str, text: str) -> str:
    """Check the name of a node, namespace, endpoint or port: an RFC 1123 label."""
    if len(text) > LABEL_MAX:
        raise InvalidName(kind, text, f"{LABEL_MAX} characters at most (RFC 1123)")
    if not _RFC1123.match(text):
        rule = "lower-case letters, digits and '-', first and last a letter or digit (RFC 1123)"
        raise InvalidName(kind, text, rule)
    return text


def dns_name(kind: str, text: str) -> str:
    """Check a host name of DNS: labels with dots between, 253 characters at most."""
    if len(text) > DNS_NAME_MAX or not text:
        raise InvalidName(kind, text, f"1 to {DNS_NAME_MAX} characters (RFC 1123)")
    for label in text.split("."):
        rfc1123_label(kind, label)
    return text


def cluster_id(number: int) -> int:
    """Check a cluster id: it travels in 8 bits of the VNI, and 0 means 'no mesh'."""
    if not 1 <= number <= 255:
        raise ConfigError(f"cluster id {number} is out of range: 1 to 255")
    return number
