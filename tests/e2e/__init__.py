"""The whole command: real processes, real kills, real files."""
