"""How the services' images are filled: what is left out of them, and the list of what is in them.

Runs inside a build, before anything is installed: only the standard library is imported here.
"""
