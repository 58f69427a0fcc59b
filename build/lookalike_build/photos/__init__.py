"""Photos: read from files, URLs and object stores, and decoded within a budget of memory."""
