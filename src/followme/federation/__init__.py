"""Domains of one federation: each controller owns networks, and is home, foreign or correspondent of each node."""
