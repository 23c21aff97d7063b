"""The commands, one module each; what several of them take is in ``options``."""
