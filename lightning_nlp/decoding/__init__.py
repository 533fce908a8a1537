"""Turning hidden states into text: sampling and cached generation, for any backbone."""
