"""The tests of fastdl; see README.md for which fault each of them names."""
