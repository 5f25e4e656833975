"""Which blocks get a network, and of how many units."""

from itertools import product
from math import prod

import pytest
import torch
from helpers import ASTRONAUT
from scipy.fft import dctn

from datasets.sources import read_picture
from utils.allocation import LevelCosts, allocate, cosine_errors, count_parameters, is_whole, price_for
from utils.blocks import gather_blocks

PARAMETERS = torch.tensor([30, 70])


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    """(35, 256, 3) blocks of 16 x 16 of a picture."""
    return gather_blocks(read_picture(ASTRONAUT, (80, 112)).values, (16, 16), torch.arange(35))


def volume(face: torch.Tensor) -> torch.Tensor:
    """Blocks of 8 x 8 x 4 whose planes are pieces of a picture's blocks."""
    return face.unflatten(1, (2, 8, 2, 8)).permute(0, 2, 4, 1, 3, 5).reshape(len(face), 8 * 8 * 4, 3)


CASES = [((16, 16), 3), ((16, 16), 1), ((32, 8), 3), ((8, 8, 4), 3), ((8, 8, 4), 1), ((4, 4, 16), 2)]


def blocks_of(face: torch.Tensor, patch_size: tuple[int, ...], n_channels: int) -> torch.Tensor:
    return (volume(face) if patch_size == (8, 8, 4) else face)[..., :n_channels]


@pytest.mark.parametrize(("patch_size", "n_channels"), CASES)
def test_what_is_left_is_all_but_the_largest_cosines_of_decorrelated_channels(face, patch_size, n_channels):
    blocks = blocks_of(face, patch_size, n_channels)
    counts = torch.tensor([0, 1, 7, 100, 250])
    left = cosine_errors(blocks, patch_size, counts)
    for block, errors in zip(blocks.double().numpy(), left, strict=True):
        centred = block - block.mean(0)
        _, axes = torch.linalg.eigh(torch.from_numpy(centred.T @ centred))
        channels = (centred @ axes.numpy()).T.reshape(n_channels, *patch_size)
        energies = sorted(value for channel in channels for value in dctn(channel, norm="ortho").ravel() ** 2)
        expected = [sum(energies[: len(energies) - count]) / block.size for count in counts]
        torch.testing.assert_close(errors.double(), torch.tensor(expected).double(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(("patch_size", "n_channels"), CASES)
def test_no_cosines_leave_the_variance_and_all_of_them_nothing(face, patch_size, n_channels):
    blocks = blocks_of(face, patch_size, n_channels)
    n_values = prod(blocks.shape[1:])
    none, *all_of_them = cosine_errors(blocks, patch_size, torch.tensor([0, n_values, n_values + 1, 10**6])).T
    torch.testing.assert_close(none, blocks.double().var(1, correction=0).mean(1).float(), rtol=1e-6, atol=0)
    assert all((left == 0).all() for left in all_of_them)


@pytest.mark.parametrize(("patch_size", "n_channels"), CASES)
def test_what_is_left_does_not_depend_on_which_blocks_are_transformed_together(face, patch_size, n_channels):
    blocks, counts = blocks_of(face, patch_size, n_channels), torch.arange(0, 256, 5)
    together = cosine_errors(blocks, patch_size, counts)
    for at_once in (1, 2, 11):
        parts = [cosine_errors(some, patch_size, counts) for some in blocks.split(at_once)]
        assert torch.equal(torch.cat(parts), together)
    order = torch.randperm(len(blocks), generator=torch.Generator().manual_seed(0))
    assert torch.equal(cosine_errors(blocks[order], patch_size, counts), together[order])


@pytest.mark.parametrize("n_channels", [1, 3])
def test_a_block_of_one_colour_needs_no_cosine(n_channels):
    assert (cosine_errors(torch.full((2, 64, n_channels), 0.3), (8, 8), torch.tensor([0, 5])) < 1e-30).all()


def make_costs(grids: list[tuple[int, ...]], seed: int, parameters: torch.Tensor = PARAMETERS) -> list[LevelCosts]:
    """Random ones, the finest level first: more parameters leave less; detail is as large as errors."""
    generator, levels = torch.Generator().manual_seed(seed), []
    for grid in grids:
        with_network = torch.rand(prod(grid), len(parameters), generator=generator).cumsum(1).flip(1)
        without = 2 * torch.rand(prod(grid), generator=generator) ** 2
        levels.append(LevelCosts(grid, 10, parameters, with_network, without))
    return levels


def children(grids: list[tuple[int, ...]], level: int, block: int) -> list[int]:
    """The blocks of the next finer level that lie on a block."""
    place = torch.unravel_index(torch.tensor(block), grids[level])
    fine = [[2 * int(at) + one for one in (0, 1)] for at in place]
    return [
        int(torch.arange(prod(grids[level - 1])).view(grids[level - 1])[where])
        for where in product(*fine)
        if all(at < length for at, length in zip(where, grids[level - 1], strict=True))
    ]


def cost(levels: list[LevelCosts], choices: list[list[int]], price: float) -> float:
    """Of some networks, -1 for none; infinite if blocks without one are neither split nor free of finer networks.

    What a network leaves is shared equally by the children that exist, and counts for those that have none, neither
    themselves nor in their place; of these counts the detail as well that they miss, and the blocks on them.
    """
    grids = [level.grid for level in levels]

    def missed(level: int, block: int) -> float:
        """What is missed where nothing in a block has a network."""
        own = 10 * 2 ** (len(grids[0]) * level) * levels[level].without[block].item()
        return own + sum(missed(level - 1, child) for child in (children(grids, level, block) if level else []))

    def has_any(level: int, block: int) -> bool:
        own = choices[level][block] >= 0
        return own or any(has_any(level - 1, child) for child in (children(grids, level, block) if level else []))

    def covered(level: int, block: int) -> float:
        """The cost of a block that has a network, or whose children have."""
        choice, below = choices[level][block], children(grids, level, block) if level else []
        if choice < 0:
            return sum(covered(level - 1, child) for child in below) if below else torch.inf
        left = 10 * 2 ** (len(grids[0]) * level) * levels[level].with_network[block, choice].item()
        total = price * levels[level].parameters[choice].item() + (0 if below else left)
        for child in below:
            if has_any(level - 1, child):
                total += covered(level - 1, child)
            else:
                total += missed(level - 1, child) + left / len(below)
        return total

    top = len(levels) - 1
    if min(choices[top]) < 0:
        return torch.inf
    return sum(covered(top, block) for block in range(prod(grids[top])))


GRIDS = [[(3,), (2,)], [(4,), (2,), (1,)], [(3,), (2,), (1,)], [(2, 2), (1, 1)], [(2, 1), (1, 1)], [(3, 1), (2, 1)]]


@pytest.mark.parametrize("grids", GRIDS, ids=str)
@pytest.mark.parametrize("price", [0.02, 0.1, 0.4])
def test_no_other_networks_cost_less(grids, price):
    """Of all assignments of one of two networks, or none, to each block."""
    levels = make_costs(grids, seed=len(grids[0]))
    counts = [prod(grid) for grid in grids]
    every = (torch.tensor(one).split(counts) for one in product((-1, 0, 1), repeat=sum(counts)))
    least = min(cost(levels, [choice.tolist() for choice in one], price) for one in every)
    found = [choice.tolist() for choice in allocate(levels, price)]
    assert cost(levels, found, price) == pytest.approx(least, rel=1e-6)


def halved(grid: tuple[int, ...], n_levels: int) -> list[tuple[int, ...]]:
    return [tuple(-(-length // 2**level) for length in grid) for level in range(n_levels)]


PYRAMIDS = [halved((13, 9), 3), halved((21, 17), 5), halved((5, 7, 9), 4), halved((4, 4), 1)]
PYRAMID = pytest.mark.parametrize("grids", PYRAMIDS, ids=lambda grids: f"{len(grids)}_of_{grids[0]}")


@PYRAMID
def test_blocks_of_the_coarsest_level_always_have_a_network(grids):
    for price in (0.0, 1.0, 1e6):
        choices = allocate(make_costs(grids, 1), price)
        assert (choices[-1] >= 0).all()
        assert [(len(choice), choice.dtype) for choice in choices] == [(prod(grid), torch.int8) for grid in grids]


@PYRAMID
def test_parameters_that_cost_nothing_are_used_and_of_those_that_cost_too_much_there_are_the_fewest(grids):
    levels = make_costs(grids, 2)
    assert (allocate(levels, 0.0)[0] == 1).float().mean() > 0.5
    *finer, coarsest = allocate(levels, 1e6)
    assert all((choice == -1).all() for choice in finer)
    assert (coarsest == 0).all()


@PYRAMID
def test_a_higher_price_never_gives_more_parameters(grids):
    levels = make_costs(grids, 3)
    prices = torch.logspace(-4, 3, 40).tolist()
    counts = [count_parameters(levels, allocate(levels, price)) for price in prices]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) > 5 or len(grids) == 1


@PYRAMID
def test_the_price_for_a_number_of_parameters_gives_at_most_these_and_a_lower_one_more(grids):
    levels = make_costs(grids, 4)
    least, most = (count_parameters(levels, allocate(levels, price)) for price in (1e6, 0.0))
    for wanted in torch.linspace(least, most - 1, 3).long().tolist():
        price = price_for(levels, wanted)
        assert count_parameters(levels, allocate(levels, price)) <= wanted
        assert count_parameters(levels, allocate(levels, price * (1 - 1e-6))) > wanted
    assert count_parameters(levels, allocate(levels, price_for(levels, most))) == most


def test_every_third_level_builds_on_what_the_next_such_level_shows():
    """Where it is shown well enough nothing finer has a network, whatever a network there would leave."""
    assert [is_whole(level) for level in range(7)] == [True, False, False, True, False, False, True]
    levels = make_costs(halved((8, 8), 4), 5)
    for level in levels[:3]:
        level.without.zero_()
    choices = allocate(levels, 1e-3)
    assert all((choice == -1).all() for choice in choices[:3])
    levels[0].without[9] = 1e6  # row 1, column 1
    choices = allocate(levels, 1e-3)
    served = [choices[index].view(levels[index].grid)[1 >> index, 1 >> index] for index in range(3)]
    assert max(served) >= 0
    assert sum(int((choice >= 0).sum()) for choice in choices[:3]) < 1 + 4 + 16


def test_children_that_do_not_exist_take_no_share():
    """A block of one child alone, as at a far edge, leaves it all of its error."""
    levels = [
        LevelCosts((1,), 10, PARAMETERS, torch.tensor([[0.5, 0.4]]), torch.tensor([0.0])),
        LevelCosts((1,), 10, PARAMETERS, torch.tensor([[0.3, 0.1]]), torch.tensor([9.0])),
    ]
    *_, coarse = allocate(levels, 1e-9)
    assert coarse.tolist() == [1]
    cheap = 20 * 0.2 / 40  # the price at which the coarser block's second network no longer pays
    assert [allocate(levels, price)[1].item() for price in (0.99 * cheap, 1.01 * cheap)] == [1, 0]
