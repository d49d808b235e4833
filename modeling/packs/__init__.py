"""The verticals: `PACKS[slug]` is a frozen `Pack`; a new one is a file here and a line below."""

from __future__ import annotations

from modeling.packs.base import Pack, Sample
from modeling.packs.finance import FINANCE
from modeling.packs.general import GENERAL
from modeling.packs.medical import MEDICAL
from modeling.packs.retail import RETAIL

PACKS: dict[str, Pack] = {pack.slug: pack for pack in (GENERAL, MEDICAL, FINANCE, RETAIL)}

__all__ = ["PACKS", "Pack", "Sample"]
