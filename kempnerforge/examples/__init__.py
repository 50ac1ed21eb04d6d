"""Training programs to read and to copy from."""
