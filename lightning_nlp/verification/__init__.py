"""Proofs that anyone can run on a configuration of their own: real processes, killed and resumed, then compared."""
