"""torchmetrics Metrics with sum-reduced states and a signature that says how they were computed."""
