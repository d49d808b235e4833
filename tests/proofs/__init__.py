"""Proofs with large counts: what the make targets found, written down by themselves."""
