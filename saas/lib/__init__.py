"""Toolbox: knows Django, knows no app."""
