"""Who is asking, whose rows, which keys."""
