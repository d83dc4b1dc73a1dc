"""Revisions of ``strategic_db``: ``s<number>_<what>.py`` with its SQL beside it."""
