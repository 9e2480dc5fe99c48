"""What can the reader put right, and how is it said?"""


class UserError(ValueError):
    """Something that the reader can put right: what, where, and what to do next.

    The command line prints it without a traceback.
    """
