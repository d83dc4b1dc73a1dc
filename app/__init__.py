"""The two services and what they stand on."""

__version__ = "0.1.0"
