"""The retail pack: interactions and a catalogue, shoppers as the unit of privacy."""

from __future__ import annotations

from modeling.packs.base import Pack
from modeling.packs.samples.shop import SHOP_CATALOGUE, SHOP_INTERACTIONS

RETAIL = Pack(
    slug="retail",
    name="Retail",
    about="Purchases, views and ratings with a product catalogue; reviews and messages.",
    default_task="recommendation",
    epsilon_ceiling=10.0,
    column_hints={
        "text": ("review", "review_text", "comment", "message", "feedback"),
        "label": ("rating", "stars", "category", "sentiment", "department", "reason"),
        "item": ("item_id", "product_id", "sku", "asin", "article_id", "variant_id"),
        "catalogue_id": ("item_id", "product_id", "sku", "asin", "article_id", "variant_id"),
        "catalogue_text": ("text", "description", "title", "product_title", "name", "product_name"),
    },
    unit_hints=(
        "customer_id",
        "user_id",
        "shopper_id",
        "visitor_id",
        "household_id",
        "session_user",
        "loyalty_id",
        "user",
    ),
    wording={
        "person": "shopper",
        "people": "shoppers",
        "record": "interaction",
        "records": "interactions",
        "item": "product",
        "each_row": "Each row is one shopper",
    },
    samples=(SHOP_INTERACTIONS, SHOP_CATALOGUE),
)
