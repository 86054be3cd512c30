"""Exact linear dynamics between any two times, and scans over whole series."""
