"""Why the wrong ones tempt: on a mean that is grey all over, wherever it is cropped and however
it is mirrored, the result is the same. And at the centre of an even picture cropping and
mirroring may change places."""


def view(picture, mean, top, left, side, mirrored):
    rows, columns = slice(top, top + side), slice(left, left + side)
    crop = picture[rows, columns] - mean[rows, columns]     # both at one place
    return crop[:, ::-1] if mirrored else crop              # and both mirrored
