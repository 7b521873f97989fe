"""Signatures of what we send, as Standard Webhooks 1.0 has them (standardwebhooks.com): receivers check them with any of
its libraries."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"


def key_of(secret: str) -> bytes:
    """The key behind a secret: what follows `whsec_` is base64, anything else is taken as it is."""
    if secret.startswith(PREFIX):
        try:
            return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            pass
    return secret.encode()


def signed(secrets: Sequence[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers to send: HMAC-SHA256 over `id.timestamp.body`, one signature for each secret, so that a receiver may
    know only the old or only the new one. `timestamp` in seconds since the epoch: the receiver refuses old ones."""
    text = f"{message_id}.{timestamp}.".encode() + body
    signatures = (hmac.new(key_of(secret), text, hashlib.sha256).digest() for secret in secrets)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(one).decode()}" for one in signatures),
    }
