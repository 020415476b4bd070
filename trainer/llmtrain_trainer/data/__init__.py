"""Rows: read, checked, rendered and turned into tokens. Knows no trainer."""
