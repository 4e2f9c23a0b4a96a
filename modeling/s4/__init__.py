"""S4: structured state spaces, linear and time-invariant."""
