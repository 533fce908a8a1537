"""Rows of text by number or one after the other, wherever they lie; bad ones named, filtered ones left out."""
