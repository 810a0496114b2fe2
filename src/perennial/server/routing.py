"""Which requests a challenger answers, and which it is asked about unseen: pure, and the same in every worker.

A request is put at a place in [0, 1) by its key, and belongs to a share if its place lies below it. So a key stays on
its side as long as the share does, a share that grows keeps those that it had, and workers agree without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

#: what tells one draw from the other: who is in the canary says nothing of whose shadow is asked
CANARY, SHADOW = "canary", "shadow"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Parts of the requests, in [0, 1]: those that the challenger answers, and those that both are asked about."""

    canary: float = 0.0
    shadow: float = 0.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether the challenger answers, and whether the other one is asked beside, unseen."""

    challenger: bool
    beside: bool


NOTHING, NOBODY = Shares(), Choice(False, False)


def share_of(key: object, salt: str) -> float:
    """The place of a key, in [0, 1): even over keys, and another for another salt.

    Keys are compared as text, as ``erase`` does: ``7`` and ``"7"`` are one.

    Examples
    --------
    >>> share_of("ada", "churn") == share_of("ada", "churn") != share_of("ada", "fraud")
    True
    """
    hashed = blake2b(f"{salt}\0{key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(hashed, "big") >> 11) / 2**53  # as many bits as a double keeps: 1.0 is never reached


def choose(shares: Shares, key: object | None, request_id: str, trial: str) -> Choice:
    """Who is asked about a request.

    Parameters
    ----------
    shares : Shares
        Of the challenger.
    key : object, optional
        Whom the rows are about, by the stream's ``key``; the request's id stands in where it has none.
    request_id : str
        The request's id.
    trial : str
        What the draw is for: another trial puts the same keys elsewhere, and so burdens others.

    Examples
    --------
    >>> choose(Shares(canary=1.0), "ada", "r1", "churn 3")
    Choice(challenger=True, beside=False)
    """
    if not shares.canary and not shares.shadow:
        return NOBODY
    # apart, or a client who names its requests after keys would be in the canary twice
    who = f"request\0{request_id}" if key is None else f"key\0{key}"
    return Choice(
        share_of(who, f"{CANARY}\0{trial}") < shares.canary, share_of(who, f"{SHADOW}\0{trial}") < shares.shadow
    )
