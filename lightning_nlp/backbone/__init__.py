"""The Transformer: configuration, attention, positions, blocks and loss in plain PyTorch."""
