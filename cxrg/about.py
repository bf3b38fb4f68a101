"""What the package says of itself: its version, and the notice on every result."""

__version__ = "0.1.0"

NOTICE = "research use only - not for diagnosis"
"""Shown wherever a result is shown."""
