"""The two services and what they stand on."""
