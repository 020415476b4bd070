"""Builds the project's images."""


def build() -> None:
    """Builds."""


def push() -> None:
    """Pushes."""
