"""Measurements beside simple baselines and peers; not run by the tests."""
