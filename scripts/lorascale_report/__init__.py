"""Reads a run folder and shows it: in the terminal, as a page and as a picture (scripts/report.py)."""
