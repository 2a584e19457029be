"""The one exception that means: the input is wrong, and its message says what to do."""


class InputError(ValueError):
    """Raised for input that cannot be worked with.

    Its message is one complete sentence for the user: what was expected, what was given, what to do.
    Scripts catch it at the door and print it without a traceback.
    """
