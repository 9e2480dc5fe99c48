"""What does not fit an op over windows is refused in a sentence that begins with the op's name."""
import re

import numpy as np
import pytest

from helpers import distinct
from tinynet.conv import FORMS, conv2d, out_size
from tinynet.engine import Tensor
from tinynet.gradcheck import contract
from tinynet.norm import lrn
from tinynet.pool import avg_pool, max_pool
from tinynet.training.cuda_convnet import local2d, lrn_same_map


def call(function, *shapes, **options):
    return function(*[Tensor(distinct(*shape)) for shape in shapes], **options)


def refused(sentence, function, *shapes, **options):
    with pytest.raises(ValueError, match=f"^{function.__name__}: {re.escape(sentence)}"):
        call(function, *shapes, **options)


# --- the arrays -------------------------------------------------------------------------

POOLS_AND_SUCH = {"max_pool": max_pool, "avg_pool": avg_pool, "lrn_same_map": lrn_same_map}
PICTURE = "; one picture: x.reshape(1, *x.shape), grey pictures: x.reshape(*x.shape, 1)"


@pytest.mark.parametrize("shape", [(9, 9, 3), (9, 9), ()])
@pytest.mark.parametrize("name", ["conv2d", "local2d", *POOLS_AND_SUCH])
def test_a_missing_axis(name, shape):
    sentence = f"x is (N, H, W, C), not of shape {shape}{PICTURE if len(shape) == 3 else ''}"
    if name == "conv2d":
        refused(sentence, conv2d, shape, (3, 3, 3, 4), (4,))
    elif name == "local2d":
        refused(sentence, local2d, shape, (7, 7, 3, 3, 3, 4), (7, 7, 4))
    else:
        refused(sentence, POOLS_AND_SUCH[name], shape)


def test_the_advice_of_a_missing_axis_works():
    x = distinct(9, 9, 3)
    for batch in x.reshape(1, *x.shape), x.reshape(*x.shape, 1):
        assert max_pool(Tensor(batch)).shape == (len(batch), 4, 4 if len(batch) == 1 else 1,
                                                 batch.shape[3])


def test_kernels_of_too_few_axes():
    refused("W is (KH, KW, C, O), not of shape (3, 3, 2)", conv2d, (1, 5, 5, 2), (3, 3, 2), (4,))
    refused("W is (OH, OW, KH, KW, C, O), not of shape (3, 3, 2, 4)", local2d, (1, 5, 5, 2),
            (3, 3, 2, 4), (4,))


@pytest.mark.parametrize("form", FORMS)
def test_another_number_of_channels(form):
    refused("3 channels come in, the kernels want 8; x is (N, H, W, C) and W is (KH, KW, C, O)",
            conv2d, (1, 5, 5, 3), (3, 3, 8, 4), (4,), form=form)


def test_channels_before_the_pixels():
    sentence = "7 channels come in, the kernels want 3; x is (N, H, W, C) and W is ({}); " \
               "this looks like (N, C, H, W): x.transpose(0, 2, 3, 1)"
    refused(sentence.format("KH, KW, C, O"), conv2d, (2, 3, 7, 7), (5, 5, 3, 4), (4,))
    refused(sentence.format("OH, OW, KH, KW, C, O"), local2d, (2, 3, 7, 7),
            (5, 5, 3, 3, 3, 4), (5, 5, 4))


def test_nothing_is_guessed_of_an_input_that_would_fit_neither_way():
    with pytest.raises(ValueError) as error:
        call(conv2d, (2, 6, 7, 5), (3, 3, 3, 4), (4,))
    assert "looks like" not in str(error.value)


def test_weights_in_the_order_of_pytorch():
    refused("3 channels come in, the kernels want 5; x is (N, H, W, C) and W is (KH, KW, C, O)",
            conv2d, (2, 9, 9, 3), (4, 3, 5, 5), (4,))
    refused("W (KH, KW, C, O) wants a bias of shape (3,), not (4,)",      # where channels fit
            conv2d, (2, 9, 9, 3), (4, 3, 3, 3), (4,))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1,), (3,), (), (1, 4)])
def test_a_bias_of_another_length(form, shape):
    refused(f"W (KH, KW, C, O) wants a bias of shape (4,), not {shape}", conv2d, (1, 5, 5, 2),
            (3, 3, 2, 4), shape, form=form)


@pytest.mark.parametrize("shape", [(4,), (3, 3, 1), (1, 1, 4)])
def test_a_bias_of_local2d_that_is_not_one_for_every_place(shape):
    refused(f"W (OH, OW, KH, KW, C, O) wants a bias of shape (3, 3, 4), not {shape}", local2d,
            (1, 5, 5, 2), (3, 3, 3, 3, 2, 4), shape)


def test_another_number_of_places():
    refused("x has (5, 5) places for a kernel, W has (3, 3)", local2d, (1, 5, 5, 2),
            (3, 3, 3, 3, 2, 4), (3, 3, 4), pad=1)


# --- the windows ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("side, K, stride", [(1, 3, 1), (2, 5, 1), (1, 11, 4), (9, 11, 4)])
def test_a_kernel_larger_than_the_picture_is_refused_by_every_form(form, side, K, stride, dtype):
    arrays = [np.ones(shape, dtype) for shape in ((1, side, 20, 8), (K, K, 8, 8), (8,))]
    with pytest.raises(ValueError, match=f"^conv2d: a window of {K} does not fit into {side} "):
        conv2d(*map(Tensor, arrays), stride=stride, form=form)


def test_a_window_larger_than_the_picture():
    sentence = "a window of 3 does not fit into 2 pixels, padded by (0, 0)"
    for pool in max_pool, avg_pool:
        refused(sentence, pool, (1, 2, 5, 2))
    refused(sentence, local2d, (1, 5, 2, 2), (3, 1, 3, 3, 2, 4), (3, 1, 4))
    with pytest.raises(ValueError, match="a window of 5 does not fit into 4 pixels"):
        out_size(4, 5, 1)


@pytest.mark.parametrize("stride", [0, -1, 1.0, 2.5, (2, 2), None])
@pytest.mark.parametrize("form", FORMS)
def test_strides_that_are_no_number_of_pixels(stride, form):
    refused(f"size 3 and stride {stride} must be whole numbers from 1 on", conv2d, (1, 9, 9, 2),
            (3, 3, 2, 4), (4,), stride=stride, form=form)
    for pool in max_pool, avg_pool:
        refused(f"size 3 and stride {stride} must be", pool, (1, 9, 9, 2), stride=stride)


@pytest.mark.parametrize("size", [0, -3, 3.0, (3, 3)])
def test_windows_that_are_no_number_of_pixels(size):
    for pool in max_pool, avg_pool:
        refused(f"size {size} and stride 2 must be whole numbers", pool, (1, 9, 9, 2), size=size)


@pytest.mark.parametrize("pad", ["same", ((1, 1), (2, 2)), -1, (0, -1), (1, 2, 3), 1.5, None])
def test_paddings_that_are_no_number_of_pixels(pad):
    sentence = f"pad is a number of pixels or a pair (before, after), not {pad!r}; size // 2 keeps"
    refused(sentence, conv2d, (1, 5, 5, 2), (3, 3, 2, 4), (4,), pad=pad)
    refused(sentence, local2d, (1, 5, 5, 2), (3, 3, 3, 3, 2, 4), (3, 3, 4), pad=pad)


@pytest.mark.parametrize("form", FORMS)
def test_numpys_whole_numbers_are_numbers_of_pixels(form):
    shapes = (1, 9, 9, 2), (3, 3, 2, 4), (4,)
    one, two = np.int64(1), np.int64(2)
    expected = call(conv2d, *shapes, stride=2, pad=1, form=form).numpy()
    for pad in one, (one, one), [1, 1]:
        y = call(conv2d, *shapes, stride=two, pad=pad, form=form).numpy()
        assert np.array_equal(y, expected)
    assert call(max_pool, (1, 9, 9, 2), size=np.int32(3), stride=two).shape == (1, 4, 4, 2)
    assert call(lrn, (1, 9, 9, 2), n=np.int64(5)).shape == (1, 9, 9, 2)


def test_an_unknown_form():
    refused("form is one of auto, plain, im2col, winograd, not 'fft'", conv2d, (1, 5, 5, 2),
            (3, 3, 2, 4), (4,), form="fft")


# --- the norms --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, -1, 2.0, (5,)])
def test_a_number_of_channels_that_is_none(n):
    refused(f"x is (..., C), n a whole number from 1 on, not (2, 4), {n}", lrn, (2, 4), n=n)


def test_a_number_has_no_channels():
    refused("x is (..., C), n a whole number from 1 on, not (), 5", lrn, ())


@pytest.mark.parametrize("size", [0, 4, -3, 3.0, (3, 3)])
def test_a_square_without_a_middle(size):
    refused(f"size is an odd number of pixels, not {size}", lrn_same_map, (1, 5, 5, 2), size=size)


# --- what does fit ----------------------------------------------------------------------


def test_no_pictures_have_no_places_and_gradients_of_zero():
    shapes = (0, 5, 5, 2), (3, 3, 3, 3, 2, 4), (3, 3, 4)
    tensors = [Tensor(np.ones(shape), requires_grad=True) for shape in shapes]
    y = local2d(*tensors)
    assert y.shape == (0, 3, 3, 4)
    contract(y, u=np.ones(y.shape)).backward()
    assert [t.grad.shape for t in tensors] == [*shapes] and not tensors[1].grad.any()
