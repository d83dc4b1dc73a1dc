"""Which block of the VPC every subnet has: an append-only plan.

Every tier owns a region of the VPC with a slot for each of eight zones, and a zone's slot is its letter. So a subnet's
block depends on the VPC's range, the tiers declared before its own and its zone's letter alone: adding a zone or
appending a tier moves nothing (the complaint of pulumi-awsx#910).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network
from typing import Final

ZONE_SLOTS: Final = 8
_ZONE_SLOT_BITS: Final = 3


class Tier(StrEnum):
    """What a subnet is for."""

    PUBLIC = "public"
    PRIVATE = "private"
    DATABASE = "database"
    CACHE = "cache"


@dataclass(frozen=True)
class TierBlock:
    """A tier and how much of the VPC each of its subnets takes: ``2 ** -subnet_bits`` of its addresses."""

    tier: str
    subnet_bits: int


TIERS: Final[tuple[TierBlock, ...]] = (
    TierBlock(Tier.PRIVATE, subnet_bits=4),
    TierBlock(Tier.PUBLIC, subnet_bits=8),
    TierBlock(Tier.DATABASE, subnet_bits=8),
    TierBlock(Tier.CACHE, subnet_bits=8),
)
"""Append only. Pods take their addresses from the private tier, hence its size."""


def zone_slot(zone: str) -> int:
    """Slot of an availability zone, by its letter: 0 for ``eu-west-1a``.

    Raises:
        ValueError: when the zone does not end in a letter from a to h.
    """
    slot = ord(zone[-1:] or " ") - ord("a")
    if not 0 <= slot < ZONE_SLOTS:
        raise ValueError(f"zone {zone!r} has no slot: it must end in a letter from a to h")
    return slot


def plan_subnets(
    vpc: IPv4Network, zones: Iterable[str], tiers: Sequence[TierBlock] = TIERS
) -> Mapping[tuple[str, str], IPv4Network]:
    """The block of every (tier, zone).

    Args:
        vpc: range of the VPC.
        zones: availability zones in any order.
        tiers: tiers in the order in which they were introduced; each region is placed behind those before it.

    Raises:
        ValueError: when a tier does not fit behind those before it, or a zone has no slot.
    """
    zones = list(zones)
    plan: dict[tuple[str, str], IPv4Network] = {}
    start = int(vpc.network_address)
    for block in tiers:
        subnet_prefix = vpc.prefixlen + block.subnet_bits
        region_size = 1 << (32 - subnet_prefix + _ZONE_SLOT_BITS)
        start = -(-start // region_size) * region_size
        if subnet_prefix > 28 or start + region_size - 1 > int(vpc.broadcast_address):
            raise ValueError(f"tier {block.tier!r} does not fit into {vpc} behind the tiers before it")
        for zone in zones:
            address = start + zone_slot(zone) * (1 << (32 - subnet_prefix))
            plan[block.tier, zone] = IPv4Network((address, subnet_prefix))
        start += region_size
    return plan
