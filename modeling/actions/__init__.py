"""What the product does: each function decides, writes, audits and announces one change."""
