"""Benchmarks: each prints ratios against a peer or a physical limit that was measured in the same run."""
