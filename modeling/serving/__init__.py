"""Serving: the gateway that answers hot routes and the engine process that owns the weights."""
