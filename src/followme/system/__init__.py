"""This machine: namespaces, child processes, and what a command needs. Imports nothing of ours."""
