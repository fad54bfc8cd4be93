"""Follow-Me Cloud: services follow mobile users across data centres while their sessions go on."""

__version__ = "0.1.0"
