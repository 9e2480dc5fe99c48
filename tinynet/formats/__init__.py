"""How others keep weights: a file for each format, in which reader and writer stand together."""
