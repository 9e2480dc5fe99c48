# %% [markdown]
# # 14. More pictures out of one
#
# *You make 1,800 training pictures out of one, and know on which scale their colours
# change.*
#
# *Question: What may be done to a picture without changing its class? · Opens:
# `tinynet/pictures/images.py` (`Preparation`, `Place`),
# `tinynet/training/evaluation.py` (`mean_over_views`) · Paper: 4.1 · 12 minutes*
#
# ImageNet gives the paper 1.2 million pictures, and the net has 60 million weights. It could
# learn the pictures by heart (lesson 10). So it should never see a picture twice in the same
# way. A dog that is moved by ten pixels, mirrored, or seen under a warmer light is still a dog.
# Here is one picture of the class "rays". All pictures are stored in its size: 256 x 256.

# %%
import numpy as np

from tinynet.pictures import images, patterns
from tinynet.tools import svg

picture = patterns.picture("rays", 4)
print(picture.shape, picture.dtype, picture[0, 0])

# %% [markdown]
# The net sees only a square of 227 x 227 pixels, a **crop**. The crop is cut out at a random
# place, and mirrored with probability one half.

# %%
def view(picture, top, left, mirrored):
    crop = picture[top:top + 227, left:left + 227]
    return crop[:, ::-1] if mirrored else crop

places = (0, 0, False), (29, 29, False), (0, 29, True), (14, 14, True)
svg.side_by_side(*[
    svg.pixels(view(picture, *place)[::4, ::4],
               f"a crop of rays from row {place[0]}, column {place[1]}", 2, (),
               f"{place[:2]}{', mirrored' * place[2]}") for place in places])

# %% [markdown]
# <details><summary>Before you run: at how many places can a square of 227 lie, and how many
# views are that with the mirror images?</summary>The first row can be any of 0 to 29, and so
# can the first column. 30 · 30 · 2 views are 1,800.</details>

# %%
for who, side in ("tinynet, Caffe", 227), ("the program", 224):
    positions = 256 - side + 1
    print(f"{who}: {positions} x {positions} x 2 = {positions ** 2 * 2:,}")
print(f"the paper: 32 x 32 x 2 = {32 * 32 * 2:,}")
print(f"opposite corners share {(227 - 29) ** 2 / 227 ** 2:.0%} of the pixels")

# %% [markdown]
# The paper has 2,048 views, which is 256 - 224, squared and then doubled. A square of 224 has
# one more place in each direction, which makes 2,178. The views are much alike, as the paper
# itself says: even the crops of opposite corners share three pixels out of four. Still, without
# these views the paper's net overfitted so much that it would have had to be smaller.
#
# A mirror image keeps its class only if the class does not depend on left and right. Dogs
# and rays do not. Letters do.
#
# The **mean image**, the mean of all training pictures at each pixel, is subtracted from a
# crop. The mean image is first cropped and mirrored in the same way. (The authors' program
# always subtracted its centre, unmirrored: `mean="centre"`.) `Preparation` does all of this. A
# `Place` says where the crop lies and whether it is mirrored. It is a function of the seed, the
# epoch and the picture, so a restarted run sees the same crops. In the program 32 pictures in a
# row shared their place (`share=32`).

# %%
from tinynet.training.recipes import RECIPES

pictures = [patterns.picture(name, 4) for name in patterns.CLASSES]
measured = images.statistics(pictures)
prepare = images.Preparation(RECIPES["paper"], measured, seed=0)
seen = np.empty((227, 227, 3), np.float32)
prepare.fill(picture, seen, images.Place(7, 20, mirrored=True))
assert np.allclose(seen, view(picture, 7, 20, True)
                   - view(measured.mean, 7, 20, True), atol=1e-3)
for epoch in 0, 1:
    print(f"epoch {epoch}:", prepare.places(np.array([5]), None, epoch)[0][:3])

# %% [markdown]
# **Colours.** Light changes the colours of a whole picture, and not at random: in most pictures
# red, green and blue rise and fall together. A matrix of 3 x 3, the **covariance** of red,
# green and blue, says how they vary together. It is measured on all pixels of all training
# pictures. Its eigenvectors $V$, a column each, are directions in colour space along which
# pixels vary without correlation. Its eigenvalues are the variances along them. Here are both
# for ten pictures, by hand and by tinynet. (An eigenvector has no fixed sign. The third line
# chooses the sign that makes its red part positive.)

# %%
pixels = np.concatenate([one.reshape(-1, 3) for one in pictures])
variances, V = np.linalg.eigh(np.cov(pixels.T, bias=True))
V *= np.sign(V[0])
assert np.allclose(variances, measured.variances)
assert np.allclose(abs(prepare.shifts), abs(0.1 * V * variances / 255))
print("variances ", variances.round())
print("deviations", np.sqrt(variances).round())
print(V.round(2))

# %% [markdown]
# Three Gaussian numbers $a$ are drawn for each picture, and drawn anew each time that it is
# used. All pixels of the picture move by the same shift. The shift has three numbers, one each
# for red, green and blue:
#
# $$\mathrm{shift} = V \, (0.1\, a_1 \lambda_1,\; 0.1\, a_2 \lambda_2,\; 0.1\, a_3
# \lambda_3)$$
#
# The paper calls $\lambda$ the eigenvalue. But a variance is in grey levels squared, so its
# size depends on the scale of the pixels. The paper does not give the scale. Its program took
# something else: the standard deviation, which is the root. Here is one picture with one $a$,
# under three readings of the formula. The last reading is also shown with $-a$.

# %%
a = -np.array([0.5, 1.2, 1.6])
sizes = {"variances, 0 to 255": variances,
         "variances, 0 to 1": variances / 255,
         "deviations": np.sqrt(variances)}
shifts = {"as it is": np.zeros(3)}
for name, size in sizes.items():
    shifts[name] = V @ (0.1 * a * size)
    print(f"{name:20} shift {shifts[name].round(1)}")
shifts["deviations, -a"] = -shifts["deviations"]
svg.side_by_side(*[
    svg.pixels(np.uint8(np.clip(picture[::4, ::4] + shift, 0, 255)),
               f"rays, their colours: {name}", 2, (), name)
    for name, shift in shifts.items()])

# %% [markdown]
# **The trap.** The scale of the pixels decides everything. With the variance of pixels from 0
# to 255, nothing is left of the picture. On the scale from 0 to 1 the variance is $\lambda /
# 255^2$, which is $\lambda / 255$ in grey levels, and the change is hardly visible. The
# standard deviation gives a change of light, and it gives the same change on every scale. The
# next cell has the authors' own numbers for ImageNet, on the scale from 0 to 255, as they
# published them in 2014:

# %%
deviations = np.array([19.7208, 37.0939, 121.7801])
W = np.array([[0.41796, -0.71258, -0.56351], [-0.81698, -0.02354, -0.57618],
              [0.39731, 0.70120, -0.59200]])             # a row a colour
for name, size in [("variances, 0 to 255", deviations ** 2),
                   ("variances, 0 to 1", deviations ** 2 / 255),
                   ("deviations / 1.1", deviations / 1.1)]:
    spread = 0.1 * np.sqrt(W ** 2 @ size ** 2)
    print(f"{name:20} R {spread[0]:.3g}, G {spread[1]:.3g}, B {spread[2]:.3g}")

# %% [markdown]
# So the formula as printed would move the colours by 842 to 883 grey levels, of 255. On pixels
# from 0 to 1 the formula gives 3.3 to 3.5, half of what the authors had. Their program divided
# the picture by 1.1 afterwards, so that its numbers would not be larger than at test time. It
# switched the noise off after epoch 67 of 91. The paper says neither. In tinynet
# `colour="eigenvalue"` is the formula on pixels of 0 to 1; `colour="stdev"` is the program.
#
# **At test time** nothing is random. The net looks at ten views: the four corners, the centre,
# and their mirror images. Its answer is the mean of the *probabilities* of the ten views. That
# is not the same as the mean of their logits. One of the three views below is very sure of the
# first class, and the other two prefer the second class.

# %%
from tinynet.training.evaluation import mean_over_views

logits = np.array([[9.0, 0, 0], [0, 2, 0], [0, 2, 0]])

def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)

mean = softmax(logits).mean(axis=0)
assert np.allclose(np.exp(mean_over_views(logits, views=3)), mean)
print("mean of probabilities", mean.round(2))
print("softmax of mean logits", softmax(logits.mean(axis=0)).round(2))
print([place[:2] for place in prepare.views(10)[:5]], "and mirrored")

# %% [markdown]
# Among probabilities each view has one vote at most. Among logits a view that is very sure
# outvotes the others. The program and Caffe take the mean of probabilities, too. A detail: a
# mirrored view here is the mirror image of a crop. torchvision's `TenCrop` crops the mirror
# image of the picture. For the centre that is another crop, one pixel to the side, because 29
# is odd.
#
# How much do these views help? The paper's error on ILSVRC-2010 falls from 39.0 % with the
# central view to 37.5 % with ten, and by more than one point through the colours. The next cell
# has tinynet's own results, after eight epochs of CIFAR-10, over three seeds
# (`examples/results`):

# %%
# the paper, ILSVRC-2010: 39.0 -> 37.5
for crops, test, seed_0 in [("central", "30.75 ± 0.83", "27.27 and 31.49"),
                            ("random", "32.27 ± 0.38", "35.34 and 32.71")]:
    print(f"{crops}: {test} % of others wrong")
    print(f"  seed 0, its own and others: {seed_0} %")

# %% [markdown]
# With central crops the net is better by four points on its own pictures than on others: it
# begins to overfit. With random crops it does not. (Random crops are harder to learn.) But with
# random crops the net learns more slowly, and in eight epochs it gained nothing from them.
#
# Open `images.py` now, and read `Preparation` from `places` to `fill`. (`area` and `square` are
# for the recipe `small`: a random part of the picture is enlarged first. The paper has no such
# thing.)
#
# Then the exercises: `python examples/lessons/check.py 14.1 --show`, `14.2`, `14.3`.
