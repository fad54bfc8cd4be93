"""What the data plane raises."""


class DataPlaneError(RuntimeError):
    """The kernel's data plane could not be set up or changed: what, where, and what to do about it."""
