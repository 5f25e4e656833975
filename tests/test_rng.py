import pytest
import torch

from utils.rng import block_uniform, even_order, point_order


def test_weights_of_a_block_do_not_depend_on_which_others_are_drawn():
    blocks = torch.tensor([0, 3, 4, 4095, 4096, 9000, 70000])
    together = block_uniform(7, 2, blocks, 101)
    for row, block in enumerate(blocks):
        assert torch.equal(block_uniform(7, 2, block[None], 101)[0], together[row])


def test_weights_are_uniform_and_differ_by_seed_level_and_block():
    values = block_uniform(0, 0, torch.arange(1000), 100)
    assert -1 <= values.min() < -0.999
    assert 0.999 < values.max() < 1
    assert abs(values.mean()) < 4 / (3 * 1e5) ** 0.5  # four standard errors
    assert abs(values.square().mean() - 1 / 3) < 4 * (4 / 45 / 1e5) ** 0.5
    assert abs(torch.corrcoef(values[:50]).fill_diagonal_(0)).max() < 0.6
    assert not torch.equal(values, block_uniform(1, 0, torch.arange(1000), 100))
    assert not torch.equal(values, block_uniform(0, 1, torch.arange(1000), 100))


def test_every_epoch_visits_each_point_once_in_its_own_order():
    orders = point_order(3, 1, range(4, 8), 625)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(625).expand(4, -1))
    assert len(orders.unique(dim=0)) == 4
    assert torch.equal(orders[2:], point_order(3, 1, range(6, 8), 625))
    assert not torch.equal(orders, point_order(3, 0, range(4, 8), 625))


@pytest.mark.parametrize("size", [(32, 32), (25, 25), (8, 32), (1, 7), (1, 1), (16, 16, 16), (5, 6, 7)], ids=str)
def test_an_even_order_visits_each_point_once_and_is_its_epochs_own(size):
    orders = even_order(3, 1, range(4, 8), size)
    n_points = torch.tensor(size).prod()
    assert torch.equal(orders.sort(dim=1).values, torch.arange(n_points).expand(4, -1))
    assert torch.equal(orders[2:], even_order(3, 1, range(6, 8), size))
    if n_points > 100:
        assert len({*map(tuple, (*orders.tolist(), *even_order(3, 0, range(4, 8), size).tolist()))}) == 8


@pytest.mark.parametrize("size", [(32, 32), (16, 64), (16, 16, 16)], ids=str)
@pytest.mark.parametrize("n_batch", [16, 64, 256])
def test_batches_of_an_even_order_are_even_along_every_axis_and_over_the_block(size, n_batch):
    """A batch has as many points in each slab of an axis, and in each cell of a grid, as in any other."""
    for batch in even_order(0, 0, range(2), size).flatten().split(n_batch):
        places = torch.stack(torch.unravel_index(batch, size), dim=1)
        for axis, extent in enumerate(size):
            assert places[:, axis].bincount(minlength=extent).unique().numel() <= 2
            slabs = min(extent, n_batch)
            assert (places[:, axis] * slabs // extent).bincount().eq(n_batch // slabs).all()
        if len(size) == 2:
            rows = int(n_batch**0.5)
            cells = places[:, 0] * rows // size[0] * rows + places[:, 1] * rows // size[1]
            assert cells.bincount().eq(1).all()
