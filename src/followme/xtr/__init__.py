"""A LISP tunnel router (xTR; RFC 9300, 9301): the control plane without I/O, the kernel's data plane, a shell."""
