"""What does a net do? Pages that show it.

They read pictures/, training/ and tools/, and nothing reads them.
"""
