"""A stand-in for Stripe over HTTP, for machines without Stripe keys: stateful, strict, named on every page."""
