"""Why the wrong ones tempt: four factors multiply, and each is easily forgotten or taken twice.
The maps that cross are those after the pool of layer 2."""
numbers = 13 * 13 * 32                                 # of a picture, in one tower
answer = numbers * 2 * 32 * 4                          # towers, pictures, bytes of a float32
