"""The management API under /v1: OpenAI shapes, one file per noun."""
