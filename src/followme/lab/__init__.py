"""Real networks, switches and machines on one host: what the papers' experiments run on."""
