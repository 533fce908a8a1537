"""Texts tokenised once, into memory-mapped shards that runs of the same data and tokenizer find."""
