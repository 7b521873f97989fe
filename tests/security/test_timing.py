"""How long a wrong key takes does not say how much of it was right."""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from app.core.keys import ApiKey, digest_of
from tests.security.conftest import House

CALLS = 4_000
"""Of each kind, taking turns."""
ROUNDS = 5

Ask = Callable[[str], Awaitable[Any]]


async def differences(ask: Ask, near: str, far: str) -> tuple[float, float]:
    """By how much the medians differ: of a nearly right key and a wrong one, and of the wrong one and itself. In seconds."""
    took: dict[str, list[float]] = {"near": [], "far": [], "far again": []}
    kinds = [("near", near), ("far", far), ("far again", far)]
    for number in range(CALLS):
        for name, token in kinds[number % 3 :] + kinds[: number % 3]:
            began = time.perf_counter()
            await ask(token)
            took[name].append(time.perf_counter() - began)
    near_, far_, again = (statistics.median(times) for times in took.values())
    return abs(near_ - far_), abs(far_ - again)


def keys_like(house: House) -> tuple[str, str]:
    """Wrong from the last character on, and from the first of the secret on."""
    key_id, secret = house.keys["read"].split(".")
    other = secret.translate(str.maketrans({one: "A" if one != "A" else "B" for one in secret}))
    return f"{key_id}.{secret[:-1]}{other[-1]}", f"{key_id}.{other}"


async def tells(ask: Ask, near: str, far: str) -> bool:
    """Whether the nearly right one takes longer or shorter than chance makes, every time."""
    for _ in range(ROUNDS):
        difference, noise = await differences(ask, near, far)
        if difference <= max(2 * noise, 100e-9):
            return False
    return True


async def test_a_nearly_right_key_takes_as_long_as_a_wrong_one(house: House) -> None:
    assert not await tells(house.services.ring.holder, *keys_like(house))


async def test_a_nearly_right_token_of_a_session_does_too(house: House) -> None:
    guest = await house.services.sessions.begin(house.keys["read"])
    assert guest is not None
    assert guest.token is not None
    near = guest.token[:-1] + ("A" if guest.token[-1] != "A" else "B")
    for token in (near, keys_like(house)[1]):
        assert await house.services.sessions.holder(token) is None
    assert guest.session.digest == digest_of(
        guest.token.split(".")[1]
    ), "it is looked up by a digest, which nobody can steer"


async def test_a_comparison_that_stops_at_the_first_difference_is_found(house: House, monkeypatch: Any) -> None:
    """So that the measure is one."""
    right = house.keys["read"].split(".")[1]

    def fits(key: ApiKey, secret: str) -> bool:
        return all(one == other for one, other in zip(secret, right, strict=True))

    monkeypatch.setattr(ApiKey, "fits", fits)
    assert await tells(house.services.ring.holder, *keys_like(house))
