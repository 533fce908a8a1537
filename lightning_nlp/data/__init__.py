"""Text to batches: sources, tokenizer, objectives, order, lanes, DataModules."""
