"""Why the wrong ones tempt: without padding, at stride 1 and with sizes that divide, several of
these formulas agree. 227, 11 and 4 do divide; 224 shows who rounds."""


def out_size(size, kernel, stride, pad):
    last = size + 2 * pad - kernel                     # where the last window may begin
    return last // stride + 1
