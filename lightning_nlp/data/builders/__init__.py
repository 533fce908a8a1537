"""Sample corpora made from text that is already on every machine with Python; no network."""
