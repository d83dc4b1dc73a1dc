"""Revisions of ``tactical_db``: ``t<number>_<what>.py`` with its SQL beside it."""
