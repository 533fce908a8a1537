"""Sweeps: many runs of `fit` described by one YAML file; resumable, pruned early, on one machine or many."""
