"""Code that Secrets Manager runs to rotate signing keys; shipped as text, never imported by the program."""
