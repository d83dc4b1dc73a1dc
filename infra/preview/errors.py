"""What a user of the preview can get wrong, told in one line each."""

from __future__ import annotations


class WrongInput(Exception):  # noqa: N818 - read as a sentence where it is raised
    """The preview cannot run with what it was given; ``lines`` say what, where and what to do, one mistake each."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
