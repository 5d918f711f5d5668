import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from chestxray import imaging
from chestxray.errors import ConfigError
from chestxray.learning.augmentation import Augmenter, Batch, jpeg
from chestxray.learning.config import Augmentation
from chestxray.learning.draws import Draws
from chestxray.learning.pictures import BOXES_PX, Pictures, bare_pictures
from factories.datasets import radiograph_levels
from factories.training_pictures import ALWAYS, CHANGES, NEVER, only, pictures_of, rectangle

CPU = torch.device("cpu")
SIDE_PX = 64
LUNGS = rectangle(SIDE_PX, slice(12, 52), slice(8, 56))
BOX = rectangle(BOXES_PX, slice(14, 22), slice(10, 18))
TENSORS = ("pixels", "targets", "lungs", "knows_lungs", "boxes", "knows_boxes")


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    """Two whole ones and two that show lungs only of each truth, the positives with boxes."""
    levels = np.stack([radiograph_levels(s, opacity=s % 2 == 1) for s in range(8)])
    masks = dict.fromkeys(range(8), LUNGS)
    masks[6] = LUNGS & ~rectangle(SIDE_PX, slice(20, 30), slice(12, 20))
    masks[7] = LUNGS & ~rectangle(SIDE_PX, slice(35, 45), slice(40, 50))
    for i in (4, 5, 6, 7):
        levels[i][~masks[i]] = 0
    return pictures_of(
        levels,
        np.arange(8) % 2,
        lungs=masks,
        boxes=dict.fromkeys((1, 3, 5, 7), BOX),
        lungs_only=(4, 5, 6, 7),
    )


def augmented(
    pictures: Pictures,
    config: Augmentation,
    indices: list[int] | None = None,
    *,
    key: tuple[int, int, int] = (0, 0, 0),
    rows: Tensor | None = None,
    side_px: int = SIDE_PX,
) -> Batch:
    """A batch of ``indices`` (all, if None), or those ``rows`` of it."""
    batch = torch.arange(len(pictures)) if indices is None else torch.tensor(indices)
    draws = Draws(key, len(batch), CPU, rows)
    return Augmenter(pictures, config)(batch if rows is None else batch[rows], draws, side_px)


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in TENSORS)


# A batch.


def test_a_batch_is_a_function_of_seed_epoch_and_step_alone(pictures):
    keys = [(seed, epoch, step) for seed in (0, 7) for epoch in (0, 5) for step in (0, 1, 2)]
    forwards = {key: augmented(pictures, ALWAYS, key=key) for key in keys}
    torch.rand(1)  # whatever else is drawn meanwhile
    backwards = {key: augmented(pictures, ALWAYS, key=key) for key in reversed(keys)}
    assert all(equal(forwards[key], backwards[key]) for key in keys)
    assert len({batch.pixels.numpy().tobytes() for batch in forwards.values()}) == len(keys)


@pytest.mark.parametrize("config", [Augmentation(), ALWAYS], ids=["usual", "always"])
@pytest.mark.parametrize("world", [2, 3, 5])
def test_the_shares_of_a_batch_are_the_whole_to_rounding(pictures, config, world):
    indices = [3, 5, 0, 1, 4, 6, 2, 7, 7]
    for step in range(3):
        whole = augmented(pictures, config, indices, key=(0, 0, step))
        for rank in range(world):
            rows = torch.arange(rank, len(indices), world)
            share = augmented(pictures, config, indices, key=(0, 0, step), rows=rows)
            for name in TENSORS:
                part = getattr(whole, name)[rows]
                torch.testing.assert_close(getattr(share, name), part, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "config", [Augmentation(), ALWAYS, NEVER], ids=["usual", "always", "never"]
)
@pytest.mark.parametrize("side_px", [32, 64, 96])
def test_pictures_come_out_grey_square_and_of_the_size_asked_for(pictures, config, side_px):
    batch = augmented(pictures, config, [0, 1, 5], side_px=side_px)
    assert batch.pixels.shape == (3, 1, side_px, side_px)
    assert batch.lungs.shape == batch.boxes.shape == (3, side_px // 4, side_px // 4)
    for maps in (batch.pixels, batch.lungs, batch.boxes):
        assert maps.dtype == torch.float32
        assert (maps.min() >= 0) & (maps.max() <= 1)
    assert batch.targets.tolist() == [0, 1, 1]
    assert batch.knows_lungs.tolist() == [True] * 3


def test_the_pictures_that_go_in_stay_as_they_are(pictures):
    names = ("levels", "lungs", "boxes", "targets", "knows_lungs", "knows_boxes", "lungs_only")
    before = {name: getattr(pictures, name).clone() for name in names}
    for step in range(4):
        augmented(pictures, ALWAYS, key=(0, 0, step))
    assert all(torch.equal(getattr(pictures, name), tensor) for name, tensor in before.items())


def test_no_change_is_made_where_none_is_asked_for(pictures):
    batch = augmented(pictures, NEVER)
    levels = pictures.levels[:4].float() / 255
    torch.testing.assert_close(batch.pixels[:4, 0], levels, rtol=0, atol=1e-5)
    shown = pictures.lungs[4:] > 0  # in pictures of lungs only, what is black has no right level
    inside = functional.max_pool2d((~shown).float()[:, None], 5, 1, 2)[:, 0] == 0
    torch.testing.assert_close(
        batch.pixels[4:, 0][inside], pictures.levels[4:][inside] / 255, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        batch.lungs, functional.avg_pool2d(pictures.lungs[:, None] / 255, 4)[:, 0]
    )
    assert torch.equal(batch.knows_boxes, pictures.knows_boxes)


def test_a_picture_kept_larger_comes_out_as_serving_shrinks_it():
    kept = radiograph_levels(0, opacity=True, side_px=192)
    smooth = imaging.resize(imaging.resize(kept / np.float32(255), 24), 192)
    levels = np.rint(smooth * 255).astype(np.uint8)
    batch = augmented(pictures_of(levels[None], [1]), NEVER, side_px=160)
    served = imaging.resize(levels / np.float32(255), 160)
    assert np.abs(batch.pixels[0, 0].numpy() - served).max() < 1.5 / 255


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_can_be_asked_for_by_itself_and_is_made_to_what_it_is_for(pictures, name):
    changed = torch.zeros(8, dtype=torch.bool)
    for step in range(6):  # a bar may be too thin to be seen, another picture may be the same one
        key = (0, 0, step)
        plain = augmented(pictures, NEVER, key=key)
        difference = augmented(pictures, only(name), key=key).pixels - plain.pixels
        changed |= difference.abs().amax((1, 2, 3)) > 1e-5
    whole, lungs_only = [True] * 4 + [False] * 4, [False] * 4 + [True] * 4
    of_some = {
        "paste_p": whole,
        "swap_p": whole,
        "paste_lungs_only_p": lungs_only,
        "veil_p": lungs_only,
    }
    assert changed.tolist() == of_some.get(name, [True] * 8)


def test_a_change_that_others_get_changes_nothing_for_one_that_does_not(pictures):
    """What is drawn for one change or picture is not drawn in another's place."""
    half = NEVER.model_copy(update={"noise_p": 0.5})
    some, all_ = augmented(pictures, half), augmented(pictures, only("noise_p"))
    plain = augmented(pictures, NEVER)
    kinds = set()
    for i in range(8):
        noisy = torch.equal(some.pixels[i], all_.pixels[i])
        assert noisy != torch.equal(some.pixels[i], plain.pixels[i])
        kinds.add(noisy)
    assert kinds == {True, False}


def test_an_augmented_radiograph_still_resembles_itself(pictures):
    indices = [0] * 50
    batch = augmented(bare_pictures(pictures.levels.numpy()), Augmentation(), indices)
    mean = float(pictures.levels[0].float().mean() / 255)
    assert float(batch.pixels.mean()) == pytest.approx(mean, rel=0.25)
    assert batch.pixels.std((1, 2, 3)).min() > 5 / 255


# Where.


@pytest.mark.parametrize("name", ["flip_p", "affine_p"])
def test_lungs_and_boxes_move_with_the_picture(name):
    square = rectangle(96, slice(20, 52), slice(12, 36))  # bright where its lungs and its box are
    box = rectangle(BOXES_PX, slice(10, 26), slice(6, 18))
    pictures = pictures_of(255 * square[None], [1], lungs={0: square}, boxes={0: box})
    extents = {"scale": 1.2, "rotate_deg": 20.0} if name == "affine_p" else {}
    moved = set()
    for step in range(20):
        batch = augmented(pictures, only(name, **extents), key=(0, 0, step), side_px=96)
        bright = functional.avg_pool2d(batch.pixels, 4)[0, 0]
        torch.testing.assert_close(batch.lungs[0], bright)
        assert batch.knows_boxes.item()
        here, there = (at.nonzero().float() for at in (bright > 0.5, batch.boxes[0] > 0.5))
        assert (here.mean(0) - there.mean(0)).abs().max() < 0.5
        assert len(there) == pytest.approx(len(here), rel=0.15)
        moved.add(tuple(here.mean(0).tolist()))
    assert len(moved) == (1 if name == "flip_p" else 20)


def test_a_flip_exchanges_left_and_right(pictures):
    plain, flipped = augmented(pictures, NEVER), augmented(pictures, only("flip_p"))
    torch.testing.assert_close(flipped.pixels[:4], plain.pixels[:4].flip(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(flipped.lungs, plain.lungs.flip(2))
    assert not torch.equal(plain.boxes[1], plain.boxes[1].flip(1))
    # Sampled beside the middle of a cell, so a little off when mirrored.
    assert (flipped.boxes - plain.boxes.flip(2)).abs().mean() < 0.02


def test_a_picture_is_moved_no_farther_than_asked():
    """A disc in the middle of a picture that is only turned and scaled."""
    disc = np.hypot(*np.ogrid[-47.5:48.5, -47.5:48.5]) < 20
    pictures = pictures_of(255 * disc[None], [0])
    extents = {"scale": 1.5, "aspect": 1.0, "rotate_deg": 0.0}
    batch = augmented(pictures, only("affine_p", **extents), [0] * 200, side_px=96)
    area = (batch.pixels > 0.5).float().sum((1, 2, 3)) / disc.sum()
    assert (area.min() > 0.95 / 1.5**2) & (area.max() < 1.05 * 1.5**2)
    assert (area.min() < 0.6) & (area.max() > 1.8)


def test_a_box_that_has_left_the_picture_is_known_no_more():
    corner = rectangle(BOXES_PX, slice(0, 12), slice(0, 12))
    bright = rectangle(96, slice(0, 24), slice(0, 24))
    pictures = pictures_of(255 * bright[None], [1], boxes={0: corner})
    batch = augmented(pictures, only("affine_p", scale=3.0), [0] * 60, side_px=96)
    shown_px = (batch.pixels > 0.5).sum((1, 2, 3))
    assert batch.knows_boxes[shown_px > 400].all()  # less may fall between the places of the map
    assert not batch.knows_boxes[shown_px == 0].any()
    assert (shown_px == 0).any()
    assert not (batch.boxes[~batch.knows_boxes] > 0.5).any()


# Lungs in others' frames.

OWN_LUNGS = rectangle(96, slice(16, 80), slice(8, 40))
OWN_BOX = rectangle(BOXES_PX, slice(8, 24), slice(4, 12))  # their left half, above the middle
FRAME_LUNGS = rectangle(96, slice(40, 88), slice(32, 80))
OWN, FRAME, BRIGHT, OUTSIDE = 100, 50, 250, 180


def own_levels() -> np.ndarray:
    """Lungs with a bright box in them, and something else around them."""
    levels = np.full((96, 96), OUTSIDE, np.uint8)
    levels[OWN_LUNGS] = OWN
    levels[rectangle(96, slice(16, 48), slice(8, 24))] = BRIGHT
    return levels


def frame_levels() -> np.ndarray:
    return np.full((96, 96), FRAME, np.uint8)


@pytest.mark.parametrize(("name", "lungs_only"), [("paste_p", ()), ("paste_lungs_only_p", (0,))])
def test_pasted_lungs_stand_where_the_frames_are_with_their_box_in_them(name, lungs_only):
    levels = own_levels()
    if lungs_only:
        levels[~OWN_LUNGS] = 0
    pictures = pictures_of(
        [levels, frame_levels()],
        [1, 0],
        lungs={0: OWN_LUNGS, 1: FRAME_LUNGS},
        boxes={0: OWN_BOX},
        lungs_only=lungs_only,
    )
    for step in range(10):
        config = only(name, paste_levels=0.0)
        batch = augmented(pictures, config, [0], key=(0, 0, step), side_px=96)
        torch.testing.assert_close(
            batch.lungs[0], functional.avg_pool2d(torch.from_numpy(FRAME_LUNGS)[None].float(), 4)[0]
        )
        pixels = batch.pixels[0, 0].numpy() * 255
        np.testing.assert_allclose(pixels[~FRAME_LUNGS], FRAME, atol=0.1)
        # Three pixels of the rim are the frame's, and all within is the lungs', box and all.
        inside = pixels[46:82, 38:74]
        assert np.isin(np.rint(inside), (OWN, BRIGHT)).mean() > 0.8
        assert (inside > OWN - 3).all()
        # The box fills the left half above the middle, as it did at home, but for 5 % of freedom.
        assert (inside[:15, :15] > BRIGHT - 3).all()
        assert (inside[22:] < OWN + 3).all()
        assert (inside[:, 22:] < OWN + 3).all()
        rows, columns = (batch.boxes[0] > 0.5).nonzero(as_tuple=True)
        assert (rows.min() * 4 >= 38) & (rows.max() * 4 + 4 <= 68)
        assert (columns.min() * 4 >= 30) & (columns.max() * 4 + 4 <= 60)
        assert batch.knows_boxes.item()


def test_frames_are_of_whole_negatives_whose_lungs_are_known():
    levels = [np.full((96, 96), level, np.uint8) for level in (100, 30, 60, 120, 150, 180)]
    for i in (3, 4):
        levels[i][~FRAME_LUNGS] = 0
    pictures = pictures_of(
        levels,
        [1, 1, 0, 0, 1, 0],
        lungs={0: OWN_LUNGS, 1: FRAME_LUNGS, 2: FRAME_LUNGS, 3: FRAME_LUNGS, 4: FRAME_LUNGS},
        lungs_only=(3, 4),
    )
    batch = augmented(pictures, only("paste_p"), [0] * 40, side_px=96)
    np.testing.assert_allclose(batch.pixels[:, 0, :30].numpy() * 255, 60, atol=0.1)


@pytest.mark.parametrize("known", [{}, {0: OWN_LUNGS}, {1: FRAME_LUNGS}])
def test_without_lungs_of_both_nothing_is_pasted(known):
    pictures = pictures_of([own_levels(), frame_levels()], [1, 0], lungs=known)
    config = NEVER.model_copy(update={"paste_p": 1.0, "paste_lungs_only_p": 1.0})
    batch = augmented(pictures, config, [0], side_px=96)
    assert equal(batch, augmented(pictures, NEVER, [0], side_px=96))


def test_the_grey_level_of_pasted_lungs_moves_towards_the_frames():
    pictures = pictures_of(
        [np.full((96, 96), OWN, np.uint8), frame_levels()],
        [1, 0],
        lungs={0: OWN_LUNGS, 1: FRAME_LUNGS},
    )
    batch = augmented(pictures, only("paste_p", paste_levels=0.7), [0] * 100, side_px=96)
    inside = batch.pixels[:, 0, 60, 60] * 255
    assert (inside.min() >= OWN - 0.7 * (OWN - FRAME) - 0.1) & (inside.max() <= OWN + 0.1)
    assert (inside.min() < OWN - 30) & (inside.max() > OWN - 5)


def test_a_veil_is_the_mask_of_a_picture_of_the_other_truth():
    """Holes of four masks: a picture's own, one of the same truth's, one of the other's."""
    holes = [
        rectangle(96, slice(y, y + 12), slice(x, x + 12))
        for y, x in ((24, 20), (24, 60), (60, 20), (60, 60))
    ]
    own, of_own_truth, of_other, _ = holes
    lungs = rectangle(96, slice(8, 88), slice(8, 88))
    masks = {i: lungs & ~hole for i, hole in enumerate((own, of_own_truth, of_other))}
    pictures = pictures_of(
        [*(np.where(mask, 200, 0) for mask in masks.values()), np.full((96, 96), 90)],
        [1, 1, 0, 0],
        lungs=masks,
        lungs_only=(0, 1, 2),
    )
    veiled = augmented(pictures, only("veil_p"), [0] * 40, side_px=96).pixels[:, 0]
    plain = augmented(pictures, NEVER, [0] * 40, side_px=96).pixels[:, 0]
    surroundings = veiled[:, 0, 0]
    assert torch.equal(plain[:, 0, 0], surroundings)
    assert 0.3 < (surroundings == 0).float().mean() < 0.7  # half of them black

    def level(pixels: Tensor, hole: np.ndarray) -> Tensor:
        middle = hole.nonzero()
        return pixels[:, int(middle[0].mean()), int(middle[1].mean())]

    lung = torch.full((40,), 200 / 255)
    for pixels in (plain, veiled):
        torch.testing.assert_close(level(pixels, own), surroundings)
        torch.testing.assert_close(level(pixels, of_own_truth), lung)
    torch.testing.assert_close(level(plain, of_other), lung)
    torch.testing.assert_close(level(veiled, of_other), surroundings)


def test_without_pictures_of_lungs_of_both_truths_there_is_no_veil():
    mask = rectangle(96, slice(8, 88), slice(8, 88))
    pictures = pictures_of(
        [255 * mask, 255 * mask], [1, 0], lungs={0: mask, 1: mask}, lungs_only=(0,)
    )
    veiled = augmented(pictures, only("veil_p"), [0], side_px=96)
    assert equal(veiled, augmented(pictures, NEVER, [0], side_px=96))


def test_swapped_surroundings_leave_the_middle_and_come_from_another_whole_picture():
    ramp = np.tile(np.arange(96, dtype=np.uint8), (96, 1))
    lungs_only = np.where(OWN_LUNGS, 200, 0)
    pictures = pictures_of(
        [np.full((96, 96), 150), ramp, lungs_only],
        [1, 0, 0],
        lungs={2: OWN_LUNGS},
        lungs_only=(2,),
    )
    swapped = augmented(pictures, only("swap_p", paste_levels=0.0), [0] * 40, side_px=96)
    pixels = swapped.pixels[:, 0] * 255
    np.testing.assert_allclose(pixels[:, 34:60, 30:66], 150, atol=0.1)
    corners = pixels[:, :2].numpy()
    from_ramp = np.abs(corners - ramp[:2]).max((1, 2)) < 0.1
    own = np.abs(corners - 150).max((1, 2)) < 0.1
    assert (from_ramp | own).all()
    assert from_ramp.any()


# Exposure, detector and file.


def test_a_borrowed_tone_brings_the_histogram_towards_anothers():
    ramp = np.linspace(0, 1, 96)
    dark = np.tile(10 + 120 * ramp**2, (96, 1))
    bright = np.tile(120 + 120 * ramp, (96, 1))
    pictures = pictures_of([np.rint(dark), np.rint(bright)], [0, 1])
    batch = augmented(pictures, only("borrow_tone_p"), [0] * 60, side_px=96)
    pixels = batch.pixels[:, 0] * 255
    assert (pixels.diff(dim=2) >= -1e-3).all()  # what was brighter is not darker now
    means = pixels.mean((1, 2)).numpy()
    own, others = dark.mean(), bright.mean()
    assert ((means > own - 4) & (means < others + 4)).all()
    borrowed = means > own + 4  # the other half met themselves
    assert 0.25 < borrowed.mean() < 0.75
    shares = (means[borrowed] - own) / (others - own)
    assert shares.max() > 0.95
    assert np.median(shares) > 0.5
    fullest = pixels[int(means.argmax())].numpy()
    assert np.abs(np.sort(fullest.ravel()) - np.sort(bright.ravel())).mean() < 8


def test_a_picture_that_borrows_its_own_tone_stays_as_it_is(pictures):
    alone = bare_pictures(pictures.levels[:1].numpy())
    toned = augmented(alone, only("borrow_tone_p"), [0] * 10).pixels
    assert (toned - augmented(alone, NEVER, [0] * 10).pixels).abs().mean() < 1 / 63


def test_tone_moves_contrast_about_the_middle_grey_and_brightness_by_what_is_asked():
    pictures = pictures_of([np.tile(np.linspace(102, 153, 96), (96, 1))], [0])
    config = only("tone_p", contrast=1.5, brightness=0.1)
    pixels = augmented(pictures, config, [0] * 300, side_px=96).pixels[:, 0]
    middle = pixels.mean((1, 2))
    assert (middle.min() > 0.39) & (middle.max() < 0.61)
    assert (middle.min() < 0.42) & (middle.max() > 0.58)
    spread = (pixels[:, 0, -1] - pixels[:, 0, 0]) / 0.2
    assert (spread.min() > 0.66) & (spread.max() < 1.51)
    assert (spread.min() < 0.7) & (spread.max() > 1.4)


def test_a_gamma_keeps_black_and_white_and_the_order():
    pictures = pictures_of([np.tile(np.linspace(0, 255, 96), (96, 1))], [0])
    pixels = augmented(pictures, only("gamma_p"), [0] * 50, side_px=96).pixels[:, 0]
    assert pixels[:, :, 0].max() < 0.02
    torch.testing.assert_close(pixels[:, :, -1], torch.ones(50, 96))
    assert (pixels.diff(dim=2) >= 0).all()
    middle = pixels[:, 0, 47]
    assert (middle.min() > 0.24) & (middle.max() < 0.72)


def detail(pixels: Tensor) -> Tensor:
    """The mean square of differences between neighbours, (B,)."""
    return pixels.diff(dim=3).square().mean((1, 2, 3))


@pytest.mark.parametrize(
    ("name", "sign"), [("blur_p", -1), ("resolution_p", -1), ("sharpen_p", 1), ("noise_p", 1)]
)
def test_detail_is_lost_or_gained_and_the_mean_stays(pictures, name, sign):
    plain = augmented(pictures, NEVER, [0, 1, 2, 3])
    changed = augmented(pictures, only(name), [0, 1, 2, 3])
    assert (sign * (detail(changed.pixels) - detail(plain.pixels)) > 0).all()
    means = [batch.pixels.mean((1, 2, 3)) for batch in (plain, changed)]
    torch.testing.assert_close(means[0], means[1], rtol=0, atol=0.03)


def coded(levels: np.ndarray, quality: int) -> np.ndarray:
    """What Pillow's JPEG leaves of grey levels."""
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream), dtype=float)


@pytest.mark.parametrize("quality", [15, 30, 50, 75, 90])
def test_jpeg_leaves_what_pillows_leaves(quality):
    levels = radiograph_levels(0, opacity=True, side_px=96)
    pixels = torch.from_numpy(levels / np.float32(255))[None, None]
    left = jpeg(pixels, torch.tensor([float(quality)]))[0, 0].numpy() * 255
    expected = coded(levels, quality)
    lost = np.abs(expected - levels).mean()
    # Pillow's are whole grey levels: a quarter of one in the mean is rounding.
    assert np.abs(left - expected).mean() < 0.5
    assert np.abs(left - levels).mean() == pytest.approx(lost, rel=0.05)


def test_jpeg_changes_little_at_high_quality_and_more_at_low(pictures):
    pixels = pictures.levels[:4, None] / 255
    changes = [
        (jpeg(pixels, torch.full((4,), quality)) - pixels).abs().mean() * 255
        for quality in (95.0, 50.0, 15.0)
    ]
    assert changes[0] < 1.5 < changes[1] < changes[2]


def test_importing_it_asks_no_network():
    code = """
import socket, urllib.request
asked = []
def refuse(*args, **kwargs):
    asked.append(args)
    raise OSError("no network")
socket.getaddrinfo = socket.create_connection = urllib.request.urlopen = refuse
socket.socket.connect = refuse
import chestxray.learning.augmentation
assert not asked, asked
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lungs_alone_are_nothing_to_learn_from():
    levels = np.zeros((2, 32, 32))
    with pytest.raises(ConfigError, match="lungs_only"):
        Augmenter(pictures_of(levels, [0, 1], lungs_only=(0, 1)), NEVER)
