"""Tokenizers: trained on the data or loaded, always kept as one tokenizer.json with a hash."""
