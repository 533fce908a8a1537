"""What a run leaves on disk: its directory, manifests, status and exit codes. No training code."""
