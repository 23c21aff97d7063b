"""Tests of one module each, without processes of ours."""
