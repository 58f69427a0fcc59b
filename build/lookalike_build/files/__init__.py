"""Files of any kind, written whole or not at all, and arrays in files."""
