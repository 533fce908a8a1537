"""Parameter groups, optimizers and per-step schedules."""
