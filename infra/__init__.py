"""The Pulumi program that declares the estate."""
