"""What happens to a picture before the net sees it."""
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from helpers import environment, reference, smooth
from pictures import COLOURED, plain, saved
from tinynet.errors import UserError
from tinynet.pictures import images
from tinynet.training.recipes import Recipe

# --- files ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [
    (500, 375), (375, 500), (300, 300), (256, 256), (256, 400), (1000, 257), (64, 64),
    (90, 64), (3, 2), (1, 1)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_the_shorter_side_becomes_256_and_the_central_square_is_kept(tmp_path, size):
    pixels = smooth(*size)
    picture = images.read(saved(pixels, tmp_path / "smooth.png"))
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    difference = np.abs(picture - reference(np.round(pixels)))
    assert difference.mean() < 1 and difference.max() < 3


@pytest.mark.parametrize("turn", [False, True])
def test_shrinking_averages_what_a_pixel_covers(tmp_path, turn):
    stripes = np.zeros((512, 512, 3))
    stripes[:, ::2] = 255
    picture = images.read(saved(stripes.swapaxes(0, 1) if turn else stripes, tmp_path / "a.png"))
    assert np.abs(picture[1:-1, 1:-1] - 127.5).max() <= 1


def test_a_picture_of_256_by_256_is_left_alone(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert np.array_equal(images.read(saved(pixels, tmp_path / "noise.png")), pixels)


def test_what_is_cut_off_is_the_same_on_both_sides(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (256, 300, 3), np.uint8)
    picture = images.read(saved(pixels, tmp_path / "noise.png"))
    assert np.array_equal(picture, pixels[:, 22:278])


def test_real_pictures_are_shrunk_by_the_mean_of_what_a_pixel_covers(real_pictures):
    paths = sorted((real_pictures / "imagenet-sample").glob("*/*.JPEG"))[::8]
    differences = []
    for path in paths:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float64)
        differences.append(np.abs(images.read(path) - reference(pixels)).mean())
    assert len(paths) > 5
    assert np.mean(differences) < 1.2 and max(differences) < 2.5


def test_small_real_pictures_are_enlarged(real_pictures):
    folder = real_pictures / "tiny-imagenet-50" / "train"
    paths = sorted(folder.glob("*/*_1.JPEG"))[:5]
    for path in paths:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float64)
        assert pixels.shape == (64, 64, 3)
        assert np.abs(images.read(path) - reference(pixels)).mean() < 1
    assert paths


def test_every_real_picture_becomes_rgb_even_the_grey_ones(real_pictures):
    grey = 0
    for path in sorted((real_pictures / "imagenet-sample").glob("*/*.JPEG")):
        with Image.open(path) as picture:
            if picture.mode == "RGB":
                continue
        grey += 1
        picture = images.read(path)
        assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
        assert np.ptp(picture, axis=-1).max() == 0
    assert grey


def test_a_grey_picture_becomes_rgb(tmp_path):
    picture = images.read(saved(plain("L", colour=77), tmp_path / "grey.png"))
    assert picture.shape == (256, 256, 3) and (picture == 77).all()


@pytest.mark.parametrize("mode, name", [
    ("P", "palette.png"), ("P", "palette.gif"), ("RGBA", "transparent.png"),
    ("LA", "grey.png"), ("1", "black and white.png"), ("CMYK", "print.jpg"),
    ("CMYK", "print.tif"), ("RGB", "plain.bmp"), ("RGB", "plain.webp"),
    ("RGB", "plain.ppm")])
def test_pictures_of_every_mode_become_rgb(tmp_path, mode, name):
    picture = plain().convert(mode, dither=Image.Dither.NONE)
    pixels = images.read(saved(picture, tmp_path / name))
    assert pixels.shape == (256, 256, 3) and pixels.dtype == np.uint8
    expected = np.array(picture.convert("RGB").getpixel((150, 150)), int)
    assert np.abs(pixels[128, 128] - expected).max() <= 3


@pytest.mark.parametrize("transparency", [0, bytes([250, 128, 30, 255])],
                         ids=["one colour", "several colours"])
def test_a_palette_with_transparency_becomes_rgb(tmp_path, transparency):
    picture = Image.fromarray(np.uint8(smooth(256, 256))).quantize(16)
    path = saved(picture, tmp_path / "palette.png", transparency=transparency)
    difference = np.abs(images.read(path) - np.asarray(picture.convert("RGB"), float))
    assert np.median(difference) < 1


def test_a_picture_of_16_bits_keeps_its_greys(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(np.tile(ramp, (256, 1))).save(path)
    assert np.abs(images.read(path)[10, :, 0] - np.arange(256.0)).max() <= 1


def test_the_ending_of_a_file_may_be_wrong(tmp_path):
    path = saved(plain(), tmp_path / "really a png.JPEG", format="PNG")
    assert (images.read(path) == COLOURED).all()


@pytest.mark.parametrize("size", [(1, 400), (400, 1)])
def test_a_strip_one_pixel_wide_is_a_picture(tmp_path, size):
    path = saved(plain(size=size), tmp_path / "strip.png")
    assert (images.read(path) == COLOURED).all()


def test_a_long_strip_does_not_fill_the_memory(tmp_path):
    saved(plain(size=(1, 20_000)), tmp_path / "strip.png")
    program = ("import resource; from tinynet.pictures import images; "
               "resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)); "
               f"print(images.read({str(tmp_path / 'strip.png')!r}).shape)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True,
                          text=True, env=environment())
    assert done.stdout == "(256, 256, 3)\n", done.stderr


def jpeg():
    file = io.BytesIO()
    Image.fromarray(np.uint8(smooth(300, 300))).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("content", [
    b"", b"These are words.\n", jpeg()[:200], jpeg()[:-1000], jpeg()[:2],
    b"\x89PNG\r\n\x1a\n", b"GIF89a"],
    ids=["zero bytes", "text", "a header", "all but the end", "two bytes", "png",
         "gif"])
def test_a_file_that_is_no_whole_picture_is_named(tmp_path, content):
    path = tmp_path / "holiday 17.JPEG"
    path.write_bytes(content)
    with pytest.raises(images.BrokenPicture, match="holiday 17.JPEG"):
        images.read(path)


ORIENTATION = 0x0112
HELD = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90}


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", HELD)
def test_a_photograph_is_turned_upright(tmp_path, orientation, ending):
    """As a telephone writes it that was held on its side: 6."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = Image.fromarray(np.uint8(smooth(300, 280)))
    how = {"lossless": True} if ending == "webp" else {}
    path = saved(stored, tmp_path / f"telephone.{ending}", exif=exif, **how)
    with Image.open(saved(stored, tmp_path / f"plain.{ending}", **how)) as plain:
        upright = plain.convert("RGB").transpose(HELD[orientation])
    expected = images.read(saved(upright, tmp_path / "upright.png"))
    assert np.array_equal(images.read(path), expected)
    assert np.abs(images.read(tmp_path / f"plain.{ending}").astype(int) - expected).mean() > 9


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0rubbish", b"Exif\0\0MM\0*\0\0\0\x08\0",
                                  b"Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\x63\0\0"])
@pytest.mark.filterwarnings("ignore")                # Pillow's own, of a damaged EXIF
def test_a_damaged_or_strange_orientation_does_not_matter(tmp_path, exif):
    path = saved(smooth(300, 280), tmp_path / "telephone.jpg", exif=exif)
    plain = saved(smooth(300, 280), tmp_path / "plain.jpg")
    assert np.array_equal(images.read(path), images.read(plain))


def test_a_file_that_is_not_there_is_named(tmp_path):
    for path in tmp_path / "nothing.jpg", tmp_path:
        with pytest.raises(images.BrokenPicture, match=path.name):
            images.read(path)


# --- preparation ----------------------------------------------------------------------

NOISE = np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)


def preparation(seed=0, **options):
    """With a mean image, variances and components that are like nothing else."""
    draw = np.random.default_rng(3)
    components, _ = np.linalg.qr(draw.standard_normal((3, 3)))
    stats = images.Statistics(draw.uniform(0, 255, (256, 256, 3)).astype(np.float32),
                              np.array([40.0, 300.0, 5000.0]), components)
    recipe = Recipe().changed({"crop": 227, "colour": "none", **options})
    return images.Preparation(recipe, stats, seed)


def prepared(prepare, place=None):
    out = np.full((prepare.crop, prepare.crop, 3), np.nan, np.float32)
    if place is None:
        prepare.fill(NOISE, out, prepare.centre)
    else:
        prepare.fill(NOISE, out, images.Place(*place))
    return out


def test_a_crop_is_the_picture_less_the_mean_at_the_same_place():
    prepare = preparation()
    out = prepared(prepare, (3, 29, False, np.zeros(3)))
    place = slice(3, 230), slice(29, 256)
    assert np.array_equal(out, NOISE[place] - prepare.statistics.mean[place])


def test_a_mirrored_crop_is_the_mirror_image_of_the_crop():
    prepare = preparation()
    plain = prepared(prepare, (3, 29, False, np.zeros(3)))
    mirrored = prepared(prepare, (3, 29, True, np.zeros(3)))
    assert np.array_equal(mirrored, plain[:, ::-1])


def test_the_crop_for_testing_is_the_central_one():
    prepare = preparation(crop=226)
    centre = slice(15, 241), slice(15, 241)
    expected = NOISE[centre] - prepare.statistics.mean[centre]
    assert np.array_equal(prepared(prepare), expected)
    assert np.array_equal(prepared(preparation(crop=227))[1:, 1:], expected)


def test_the_ten_views_are_corners_centre_and_their_mirror_images():
    prepare = preparation(crop=224)
    views = np.full((10, 224, 224, 3), np.nan, np.float32)
    for view, place in zip(views, prepare.views(10), strict=True):
        prepare.fill(NOISE, view, place)
    for view, (top, left) in zip(views[:5], [(0, 0), (0, 32), (16, 16), (32, 0), (32, 32)],
                                strict=True):
        place = slice(top, top + 224), slice(left, left + 224)
        assert np.array_equal(view, NOISE[place] - prepare.statistics.mean[place])
    assert np.array_equal(views[5:], np.flip(views[:5], axis=2))
    assert np.array_equal(views[2], prepared(prepare))


def test_pixel_scale_multiplies_the_differences_and_the_colour_shift():
    draw = 4, 5, True, np.array([10.0, -20.0, 30.0])
    plain = prepared(preparation(colour="stdev"), draw)
    scaled = prepared(preparation(colour="stdev", pixel_scale=1 / 64), draw)
    assert scaled == pytest.approx(plain / 64, abs=1e-5)


@pytest.mark.parametrize("colour, shrink", [("eigenvalue", 1.0), ("stdev", 1.1)])
def test_the_colour_shift_is_added_to_every_pixel(colour, shrink):
    """And the 2012 program then divides the picture."""
    shift = np.array([10.0, -20.0, 30.0])
    prepare = preparation(colour=colour, colour_sigma=0.1)
    plain, shifted = (prepared(prepare, (4, 5, False, by)) for by in (None, shift))
    assert np.abs(shifted - (plain + shift) / shrink).max() < 1e-3


def draws(prepare, indices, epoch=0):
    """All draws as rows: top, left, mirrored, and the three shifts."""
    indices = np.array(indices)
    return np.array([(top, left, mirrored, *shift) for top, left, mirrored, shift, _
                     in prepare.places(indices, np.arange(len(indices)), epoch)])


def test_draws_are_a_function_of_seed_epoch_and_index_alone():
    all_of_them = draws(preparation(seed=5, colour="stdev"), range(200), epoch=3)
    prepare = preparation(seed=5, colour="stdev")
    draws(prepare, range(7), epoch=1)
    some = [150, 2, 71]
    assert np.array_equal(draws(prepare, some, epoch=3), all_of_them[some])


@pytest.mark.parametrize("other", [dict(seed=6), dict(epoch=4), dict(first=1)])
def test_seed_epoch_and_index_each_change_the_draws(other):
    def with_(seed=5, epoch=3, first=0):
        prepare = preparation(seed, colour="stdev")
        return draws(prepare, range(first, first + 200), epoch)

    same = with_() == with_(**other)
    assert same[:, :2].mean() < 0.1                            # 1 / 30 by chance
    assert 0.3 < same[:, 2].mean() < 0.7
    assert not same[:, 3:].any()


def test_crops_and_mirrors_cover_everything_evenly():
    top, left, mirrored, *_ = draws(preparation(colour="stdev"), range(12_000)).T
    for place in top, left:
        counts = np.bincount(place.astype(int))
        assert len(counts) == 30                               # 0 ... 256 - 227
        assert counts == pytest.approx(400, abs=100)          # five standard deviations
    assert mirrored.mean() == pytest.approx(0.5, abs=0.025)
    correlations = np.corrcoef([top, left, mirrored])
    assert correlations == pytest.approx(np.eye(3), abs=0.05)


def test_a_crop_of_the_whole_picture_has_one_place():
    top, left, *_ = draws(preparation(crop=256, colour="stdev"), range(50)).T
    assert not top.any() and not left.any()


def test_without_augmentation_every_crop_is_the_central_one():
    top, left, mirrored, *_ = draws(preparation(augment=False, colour="stdev"), range(50)).T
    assert set(top) == set(left) == {(256 - 227) // 2} and not mirrored.any()


@pytest.mark.parametrize("colour, spread", [("stdev", lambda variances: variances),
                                            ("eigenvalue", lambda v: (v / 255) ** 2)])
def test_colour_noise_has_the_covariance_that_it_should(colour, spread):
    prepare = preparation(colour=colour, colour_sigma=0.1)
    shifts = draws(prepare, range(40_000))[:, 3:]
    components = prepare.statistics.components
    variances = 0.1 ** 2 * spread(prepare.statistics.variances)
    assert shifts.mean(axis=0) == pytest.approx(
        np.zeros(3), abs=0.025 * variances.max() ** 0.5)
    along = shifts @ components / variances ** 0.5
    assert np.cov(along.T) == pytest.approx(np.eye(3), abs=0.04)


def test_without_colour_noise_there_is_no_shift():
    numbers = np.arange(50)
    shifts = [shift for *_, shift in preparation(colour="none").places(numbers, numbers, 0)]
    assert shifts == [None] * 50


@pytest.mark.parametrize("schedule, epochs, last", [("2012", 91, 66), ("dexp", 95, 67),
                                                    ("2012", 182, 133), ("constant", 95, 94)])
def test_colour_noise_ends_when_the_authors_switched_it_off(schedule, epochs, last):
    prepare = preparation(colour="stdev", schedule=schedule, epochs=epochs)
    with_noise = [epoch for epoch in range(epochs) if prepare.places(
        np.arange(1), np.arange(1), epoch)[0].shift is not None]
    assert with_noise == list(range(last + 1))


def test_pictures_in_a_row_may_share_their_crop_but_not_their_colours():
    prepare, order = preparation(share=32, colour="stdev"), np.random.default_rng(0)
    indices = order.permutation(1000)
    made = prepare.places(indices[64:128], np.arange(64, 128), 2)
    places = [draw[:3] for draw in made]
    assert len(set(places[:32])) == len(set(places[32:])) == 1 != len(set(places))
    assert len({tuple(draw[3]) for draw in made}) == 64
    # The same pictures, asked for in another cut of the epoch.
    assert [draw[:3] for draw in prepare.places(indices[90:100], np.arange(90, 100), 2)] == (
        places[26:36])


def test_the_centre_of_the_mean_may_be_subtracted_wherever_the_crop_is():
    prepare = preparation(crop=224, mean="centre")
    centre = prepare.statistics.mean[16:240, 16:240]
    crop = NOISE[3:227, 29:253].astype(np.float32)
    assert np.array_equal(prepared(prepare, (3, 29, False, None)), crop - centre)
    # The program does not mirror the mean when it mirrors the picture.
    assert np.array_equal(prepared(prepare, (3, 29, True, None)), crop[:, ::-1] - centre)


@pytest.mark.parametrize("crop", [257, 0, -1])
def test_a_crop_that_does_not_fit_is_refused(crop):
    with pytest.raises(UserError, match=f"crop.* {crop}"):
        preparation(crop=crop)


def test_without_augmentation_no_part_is_enlarged():
    prepare = preparation(area=0.35, augment=False)
    places = prepare.places(np.arange(50), np.arange(50), 0)
    assert {place.square for place in places} == {prepare.centre.square}
    enlarged = preparation(area=0.35).places(np.arange(50), np.arange(50), 0)
    assert len({place.square for place in enlarged}) > 40


@pytest.mark.parametrize("shuffled", [True, False])
def test_what_is_stored_in_random_order_is_read_from_front_to_back_if_that_is_shuffled_once(
        shuffled):
    class Stored(list):
        pass

    pictures = Stored(range(30))
    pictures.shuffled = shuffled
    once, twice = (preparation(shuffle="once").order(pictures, epoch).tolist()
                   for epoch in (0, 1))
    assert once == twice and sorted(once) == list(range(30))
    assert (once == list(range(30))) == shuffled
