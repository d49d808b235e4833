"""Serving: wire, engine process, banks, chat, gateway."""
