"""This machine: namespaces, child processes, what a command needs, a log not flooded. Imports nothing of ours."""
