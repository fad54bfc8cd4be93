"""Machines on other agents' hypervisors: the authenticated channel, and what is said over it."""
