"""How a handler is left when its item waits as a row."""


class Parked(BaseException):
    """Raised in a handler whose item was parked: the lease has ended, the attempt is over, nothing is charged.

    A BaseException, so that a handler's `except Exception` does not go on with an item that it no longer holds.
    """
