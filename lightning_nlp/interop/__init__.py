"""Models of other libraries, in and out: one file a family, each a table of names."""
