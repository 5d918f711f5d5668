import math

import pytest
import torch
from torch import Tensor

from chestxray.learning.draws import Draws

CPU = torch.device("cpu")
N = 9
AMONG = torch.arange(100, 105)
DRAWN = {
    "uniform": lambda draws: draws.uniform(-2, 3),
    "uniform, of a shape": lambda draws: draws.uniform(0, 1, 2, 3),
    "factor": lambda draws: draws.factor(2.0, 1, 1),
    "normal": lambda draws: draws.normal(4),
    "happens": lambda draws: draws.happens(0.5),
    "choice": lambda draws: draws.choice(AMONG),
}


def draws(n: int = N, *, key: tuple[int, ...] = (0, 1, 2), rows: Tensor | None = None) -> Draws:
    return Draws(key, n, CPU, rows)


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
def test_a_share_of_a_batch_gets_the_numbers_that_the_whole_has_there(drawn):
    for rows in ([0, 3, 6], [8], [], [5, 1, 1]):
        whole, share = draws(), draws(rows=torch.tensor(rows, dtype=torch.long))
        for _ in range(3):  # call by call the same
            assert torch.equal(drawn(share), drawn(whole)[rows])


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
def test_numbers_follow_from_the_key_and_no_two_calls_share_them(drawn):
    n = 64
    first, again = draws(n), draws(n)
    torch.manual_seed(99)  # whatever went on meanwhile
    calls = [drawn(first) for _ in range(2)]
    assert torch.equal(calls[0], drawn(again))
    assert torch.equal(calls[1], drawn(again))
    assert not torch.equal(calls[0], calls[1])
    for key in ((1, 1, 2), (0, 0, 2), (0, 1, 3)):
        assert not torch.equal(calls[0], drawn(draws(n, key=key)))


@pytest.mark.parametrize("drawn", DRAWN.values(), ids=DRAWN)
def test_what_a_row_gets_apart_does_not_depend_on_which_others_need_some(drawn):
    of_all = drawn(draws().apart("noise", torch.arange(N)))
    for rows in ([4], [0, 4, 8], [8, 4]):
        assert torch.equal(drawn(draws().apart("noise", torch.tensor(rows))), of_all[rows])
    share = torch.tensor([1, 4, 7])  # another process's: its second row is row 4
    assert torch.equal(drawn(draws(rows=share).apart("noise", torch.tensor([1]))), of_all[[4]])


def test_what_is_drawn_apart_changes_nothing_here_and_the_reverse():
    plain, other = draws(), draws()
    plain.uniform()
    other.uniform()
    before = plain.apart("noise", torch.arange(N)).uniform()
    assert torch.equal(plain.uniform(), other.uniform())
    assert torch.equal(plain.apart("noise", torch.arange(N)).uniform(), before)


def test_draws_for_another_purpose_are_others():
    of_noise, of_blur = (draws().apart(what, torch.arange(N)) for what in ("noise", "blur"))
    assert not torch.equal(of_noise.uniform(), of_blur.uniform())
    nested = of_noise.apart("blur", torch.arange(N))
    assert not torch.equal(nested.uniform(), draws().apart("blur", torch.arange(N)).uniform())


def test_draws_have_their_ranges_and_fill_them_evenly():
    n = 20_000
    many = draws(n)
    uniform = many.uniform(-2, 3)
    assert uniform.shape == (n,)
    assert (uniform.min() >= -2) & (uniform.max() < 3)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.05)
    factor = many.factor(2, 1, 1)
    assert factor.shape == (n, 1, 1)
    assert (factor.min() > 0.499) & (factor.max() <= 2)
    assert float(factor.log2().mean()) == pytest.approx(0, abs=0.02)
    assert float((factor > math.sqrt(2)).float().mean()) == pytest.approx(0.25, abs=0.02)
    normal = many.normal(2)
    assert normal.shape == (n, 2)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02)
    assert float(normal.std()) == pytest.approx(1, abs=0.02)


def test_what_happens_never_or_always_does_and_else_as_often_as_asked():
    many = draws(30_000)
    assert not many.happens(0.0).any()
    assert many.happens(1.0).all()
    each = torch.tensor([0.0, 0.3, 1.0]).repeat_interleave(10_000)
    happened = many.happens(each)
    shares = [float(happened[each == p].float().mean()) for p in (0.0, 0.3, 1.0)]
    assert shares == pytest.approx([0, 0.3, 1], abs=0.02)


def test_a_choice_is_of_what_there_is_each_as_often():
    chosen = draws(20_000).choice(AMONG)
    values, counts = chosen.unique(return_counts=True)
    assert torch.equal(values, AMONG)
    assert (counts / 20_000).tolist() == pytest.approx([0.2] * 5, abs=0.02)
