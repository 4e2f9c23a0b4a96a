"""Stateless building blocks with plain arguments, one idea a file."""
