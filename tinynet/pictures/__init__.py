"""What does the net see? Pictures on disk, and what happens to them on their way to a batch."""
