"""Benchmarks: each prints its figures beside a peer's, as ratios; none is a test."""
