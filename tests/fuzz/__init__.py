"""Parsers of foreign bytes, each as a function of bytes that raises if a promise is broken."""
