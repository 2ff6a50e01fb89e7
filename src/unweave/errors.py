"""How a user's mistake is said."""


class UserError(Exception):
    """A mistake of the user's: shown as one line that names the value and the remedy, exit code 2."""


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)
