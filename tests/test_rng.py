import torch

from utils.rng import block_uniform, point_order


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
