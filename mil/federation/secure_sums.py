"""Sums over hospitals of which the coordinator learns the total and nothing else.

K. Bonawitz et al.: Practical secure aggregation for privacy-preserving machine learning. CCS 2017, section 4, the
protocol of pairwise masks. Each pair of sites agrees on a key (Diffie-Hellman in the 2048-bit group 14 of RFC 3526,
public keys relayed by the coordinator). For every round the pair expands it by SHAKE-256 to a mask, which one site adds
and the other subtracts. Numbers are integers modulo 2^64, so that masks cancel without rounding and any one message is
uniformly distributed.

Departure: there are no shares of keys from which the masks of a site that dropped out could be recovered. A round that
lacks a site is repeated among the others, with other masks. The coordinator is taken to follow the protocol and to be
curious; one that lies about public keys is not defended against.

A number is sent as two integers, its rounding to 2^-16 and the rest to 2^-60 of a unit, each masked. Totals are exact
to `PRECISION` for each site, and up to `LARGEST` in absolute value.
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mil.federation.messages import FederationError

Words = NDArray[np.uint64]
PRIME = int(
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B"
    "302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE6"
    "49286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D"
    "670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF",
    16,
)
"""RFC 3526, section 3, with generator 2."""
COARSE, FINE = 2.0**16, 2.0**60
LARGEST = 2.0**44
"""of a total, in absolute value"""
PRECISION = 2.0**-60
FEWEST_SITES = 2
"""Sites that a sum needs; of a single one the total is its number."""


class Keys:
    """The secret key of one site, and the keys that it shares with the others."""

    def __init__(self, site: str) -> None:
        """Draw a secret key."""
        self.site = site
        self._secret = 2 + secrets.randbelow(2**256)
        self._shared: dict[str, bytes] = {}

    @property
    def public(self) -> str:
        """The public key, in hexadecimal digits."""
        return f"{pow(2, self._secret, PRIME):x}"

    def agree(self, public: Mapping[str, str]) -> None:
        """Compute the key shared with each of the sites from their public keys.

        Raises:
            FederationError: A key is out of its range.
        """
        self._shared = {}
        for site, key in public.items():
            number = int(key, 16)
            if not 2 <= number <= PRIME - 2:
                raise FederationError(f"site {site}: public key out of range")
            if site != self.site:
                shared = pow(number, self._secret, PRIME).to_bytes(256, "big")
                self._shared[site] = hashlib.sha256(shared).digest()

    def agreed(self, sites: Sequence[str]) -> bool:
        """Return whether a key is shared with each of the other sites."""
        return set(sites) - {self.site} <= set(self._shared)

    def masked(self, values: NDArray[np.float64], context: str, sites: Sequence[str]) -> Words:
        """Return the masked integers of numbers `(n,)`, `(2 n,)`.

        Args:
            values: Finite numbers below `LARGEST` divided by the number of sites, in absolute value.
            context: Names the round; a mask is never used for two of them.
            sites: Who takes part, this site among them.

        Raises:
            FederationError: Too few sites, a site without a key, or a number that is too large.
        """
        if len(set(sites)) < FEWEST_SITES or self.site not in sites:
            raise FederationError(
                f"site {self.site}: a secure sum of {len(set(sites))} sites, expected {FEWEST_SITES} or more"
            )
        total = to_words(values, LARGEST / len(sites))
        for site in sorted(set(sites) - {self.site}):
            if site not in self._shared:
                raise FederationError(f"site {self.site}: no key is shared with {site}")
            mask = _expanded(self._shared[site], f"{context}|{'|'.join(sorted(sites))}", len(total))
            total = total + mask if self.site < site else total - mask
        return total


def to_words(values: NDArray[np.float64], largest: float = LARGEST) -> Words:
    """Return numbers `(n,)` as integers modulo 2^64, `(2 n,)`: first the coarse parts, then the fine ones.

    Raises:
        FederationError: A number is not finite, or too large.
    """
    values = np.asarray(values, np.float64).ravel()
    if not (np.abs(values) < largest).all():
        raise FederationError(
            f"a secure sum of {np.abs(values).max():.3g}, expected finite numbers below {largest:.3g}"
        )
    coarse = np.rint(values * COARSE)
    fine = np.rint((values - coarse / COARSE) * FINE)
    return np.concatenate([coarse, fine]).astype(np.int64).view(np.uint64)


def from_words(words: Words) -> NDArray[np.float64]:
    """Return the numbers `(n,)` of a total `(2 n,)`."""
    coarse, fine = np.asarray(words, np.uint64).view(np.int64).astype(np.float64).reshape(2, -1)
    return np.asarray(coarse / COARSE + fine / FINE)


def total(messages: Mapping[str, Words]) -> NDArray[np.float64]:
    """Return the sum of the numbers behind masked messages, in any order; all sites of the round must be among them."""
    words = np.stack([messages[site] for site in sorted(messages)])
    return from_words(np.asarray(words.sum(axis=0, dtype=np.uint64), np.uint64))


def _expanded(key: bytes, context: str, length: int) -> Words:
    stream = hashlib.shake_256(key + context.encode()).digest(8 * length)
    return np.frombuffer(stream, np.uint64)
