"""The one LightningModule shell and, one file a task, the heads that plug into it."""
