"""Servers that others would write around the same engine: what `benchmarks.serving_peers` compares the service with."""
