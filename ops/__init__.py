"""The on-call command line."""
