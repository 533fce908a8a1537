"""Tensor parallelism of the backbone: collectives with gradients, sharded layers, the plan, and layouts of weights."""
