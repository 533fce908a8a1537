"""The command line: dispatcher targets, LightningCLI subclass, one-line errors."""
