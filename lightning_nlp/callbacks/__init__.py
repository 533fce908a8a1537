"""Lightning callbacks attached by our Trainer in code: logging, progress, checkpoints, signals, samples."""
