"""The error for a user's mistake."""


class UserError(Exception):
    """A user's mistake: shown as one line with the value and the remedy; the command exits with code 2."""


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)
