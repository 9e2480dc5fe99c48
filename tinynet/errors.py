"""What can the reader put right?"""


class UserError(ValueError):
    """Something that the reader can put right: what, where, and what to do next.

    The command line prints it without a traceback.
    """


class Interrupted(Exception):
    """Somebody pressed Ctrl-C, and everything is saved. The message says how to go on."""
