"""Demo data free to redistribute: generated from a packaged public source, or synthetic from a fixed seed."""
