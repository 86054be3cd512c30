"""The messages that users see, and the errors that carry them."""

__all__ = []
