"""The one exception a user's mistake raises."""


class InputError(ValueError):
    """The input cannot be used as it is.

    The message is one sentence for the user: what is wrong, and what to do about it. The command
    line prints it and ends with status 2; the widgets show it. Any other exception is a defect.
    """
