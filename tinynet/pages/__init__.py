"""What does a net do? Pages that show it. They read all other wings, and nothing reads them."""
