"""Measurements against peers; see bench/README.md."""
