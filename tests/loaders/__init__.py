"""Adapters against packages of hundreds of megabytes: installed and tested by ``scripts/test --long`` only."""
