"""The controller in the LISP domain."""
