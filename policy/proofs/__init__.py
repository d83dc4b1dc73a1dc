"""What shows that each rule fires: mutations of the estate, by rule."""

from __future__ import annotations

from policy.mutation import Proof
from policy.proofs import data, edge, identity, kubernetes, operations

PROOFS: dict[str, Proof] = {**edge.PROOFS, **identity.PROOFS, **data.PROOFS, **operations.PROOFS, **kubernetes.PROOFS}
