"""Wiring: settings, front-door list, processes; may import anything, imported by nobody."""
