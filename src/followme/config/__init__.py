"""The daemons' YAML files: what may stand in them, and every mistake in words."""
