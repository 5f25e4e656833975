"""Networks of several widths side by side: each is what it would be by itself."""

from dataclasses import replace

import pytest
import torch
from helpers import BACKENDS, random_network

from models.block_network import BlockNetwork
from models.block_networks import BlockNetworks, fit_points, make_optimizers, select_all
from models.ops import reference
from models.ops.optimizers import make_optimizer, moments_of, set_step
from models.shape import NetworkShape
from training.state import PartState
from utils.errors import KernelError
from utils.rng import point_order

SHAPES = [NetworkShape(16, 3, n_layers=3, n_hidden=n_hidden, output="sine", centre=0.5) for n_hidden in (4, 12, 16, 20)]
GROUP = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1, 0], dtype=torch.int8)  # of the last shape there is none
N_POINTS, BATCH_SIZE = 112, 48
N_EPOCHS = 4
LR = torch.tensor([3e-2, 1e-2, 3e-3, 1e-3])

INDICES = [slice(None), slice(2, 7), slice(3, 4), slice(4, 4), torch.tensor([8, 0, 5, 1, 7]), torch.tensor([2, 7])]
INDEX = pytest.mark.parametrize("index", INDICES, ids=str)


def make_networks() -> BlockNetworks:
    counts = [int((GROUP == number).sum()) for number in range(len(SHAPES))]
    return BlockNetworks(GROUP, [random_network(*of_group, seed=9) for of_group in zip(counts, SHAPES, strict=True)])


@pytest.fixture
def networks() -> BlockNetworks:
    return make_networks()


@pytest.fixture(scope="module")
def coords() -> torch.Tensor:
    return torch.rand(N_POINTS, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture(scope="module")
def target() -> torch.Tensor:
    return torch.rand(len(GROUP), N_POINTS, 3, generator=torch.Generator().manual_seed(2)) - 0.5


def alone(networks: BlockNetworks, block: int) -> BlockNetwork:
    """The network of a block, in memory of its own."""
    group = networks.group[block]
    return networks.groups[group].select((networks.group[:block] == group).sum()[None])


def blocks_of(index: torch.Tensor | slice) -> list[int]:
    return torch.arange(len(GROUP))[index].tolist()


def assert_same(networks: BlockNetworks, expected: list[BlockNetwork]) -> None:
    """Bit for bit, one by one."""
    assert networks.n_blocks == len(expected)
    for block, one in enumerate(expected):
        mine = alone(networks, block)
        assert mine.shape == one.shape
        assert all(map(torch.equal, mine.state_dict().values(), one.state_dict().values()))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("index", [index for index in INDICES if index != slice(4, 4)], ids=str)
def test_blocks_predict_what_each_network_predicts_by_itself(networks, coords, backend, index):
    predicted = networks.predict(backend, index, coords)
    expected = [backend.predict(alone(networks, block), slice(None), coords) for block in blocks_of(index)]
    assert torch.equal(predicted, torch.cat([coords.new_empty(0, N_POINTS, 3), *expected]))


@INDEX
def test_a_selection_has_the_networks_of_its_blocks_in_its_order(networks, index):
    assert_same(networks.select(index), [alone(networks, block) for block in blocks_of(index)])


@INDEX
def test_a_slice_shares_memory_and_a_list_of_blocks_does_not(networks, index):
    before = [alone(networks, block) for block in range(len(GROUP))]
    part = networks.select(index)
    for parameter in part.parameters():
        parameter.data.fill_(7)
    changed = [not torch.equal(alone(networks, block).bias[0], one.bias[0]) for block, one in enumerate(before)]
    shared = set(blocks_of(index)) if isinstance(index, slice) else set()
    assert changed == [block in shared for block in range(len(GROUP))]


def test_what_is_written_goes_to_its_blocks_alone(networks):
    others, index = BlockNetworks.make(GROUP, SHAPES), torch.tensor([7, 0, 3])
    expected = [alone(others if block in index else networks, block) for block in range(len(GROUP))]
    for block in index:
        expected[block].amplitude = alone(networks, block).amplitude  # no parameter
    networks.write_(index, others.select(index))
    assert_same(networks, expected)


def test_blocks_that_are_silenced_predict_nothing_and_the_others_what_they_did(networks, coords):
    before = networks.predict(BACKENDS[0].values[0], slice(None), coords)
    silenced = torch.tensor([5, 1, 2])
    networks.silence_(silenced)
    after = networks.predict(BACKENDS[0].values[0], slice(None), coords)
    others = torch.tensor([block for block in range(len(GROUP)) if block not in silenced])
    assert (after[silenced] == 0).all()
    assert torch.equal(after[others], before[others])


def test_parameters_that_are_no_numbers_are_told_of_their_blocks(networks):
    assert networks.is_finite().tolist() == [True] * len(GROUP)
    networks.groups[1].weight[0].data[1, 3, 2] = torch.nan  # block 7, the second of its group
    networks.groups[2].bias[1].data[0] = torch.inf  # block 0
    assert networks.is_finite().nonzero().flatten().tolist() == [1, 2, 3, 4, 5, 6, 8]


def test_each_block_gets_its_amplitude(networks):
    networks.set_amplitude_(torch.arange(len(GROUP)) / 10)
    assert [alone(networks, block).amplitude.item() for block in range(len(GROUP))] == pytest.approx(
        [block / 10 for block in range(len(GROUP))]
    )


def optimizers_of(networks: BlockNetworks) -> list[torch.optim.Optimizer]:
    return make_optimizers(networks, 1e-3, None, "nradam", (0.9, 0.95))


def fit(backend, networks, optimizers, coords, target, epochs=range(N_EPOCHS)) -> torch.Tensor:
    order = point_order(0, 0, epochs, N_POINTS)
    rates = LR[epochs.start : epochs.stop]
    return fit_points(backend, networks, optimizers, coords, target, order, BATCH_SIZE, rates)


@pytest.mark.parametrize("backend", BACKENDS)
def test_networks_of_several_widths_train_as_each_does_by_itself(networks, coords, target, backend):
    expected, losses = [alone(networks, block) for block in range(len(GROUP))], []
    for block, network in enumerate(expected):
        optimizer = make_optimizer(network, 1e-3, None, "nradam", (0.9, 0.95))
        order = point_order(0, 0, range(N_EPOCHS), N_POINTS)
        losses.append(backend.fit_points(network, optimizer, coords, target[[block]], order, BATCH_SIZE, LR))
    before = [alone(networks, block) for block in range(len(GROUP))]
    assert torch.equal(fit(backend, networks, optimizers_of(networks), coords, target), torch.cat(losses, dim=1))
    assert_same(networks, expected)
    assert all(not torch.equal(one.bias[0], old.bias[0]) for one, old in zip(expected, before, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_range_at_a_time_and_survivors_alone_train_as_all_at_once(networks, coords, target, backend):
    whole = make_networks()
    fit(backend, whole, optimizers_of(whole), coords, target)
    optimizers = optimizers_of(networks)
    for rows in (slice(0, 4), slice(4, 9)):
        part, part_optimizers = select_all(networks, optimizers, rows)
        fit(backend, part, part_optimizers, coords, target[rows], range(2))
    survivors = torch.tensor([8, 5, 2, 1])
    twin, twin_optimizers = select_all(networks, optimizers, survivors)
    for optimizer in twin_optimizers:
        set_step(optimizer, 2 * 3)
    fit(backend, twin, twin_optimizers, coords, target[survivors], range(2, N_EPOCHS))
    assert_same(twin, [alone(whole, block) for block in survivors])


@pytest.fixture
def state(networks) -> PartState:
    """Of nine blocks, of which some train, some ahead of others; as if all had been trained."""
    generator = torch.Generator().manual_seed(3)
    survivors = torch.tensor([0, 7, 2, 8, 5, 3])
    twin = networks.select(survivors)
    optimizers = optimizers_of(twin)
    for optimizer in optimizers:
        for of_parameter in optimizer.state.values():
            of_parameter["exp_avg"].copy_(torch.rand(of_parameter["exp_avg"].shape, generator=generator))
    for parameter in twin.parameters():
        parameter.data += 1
    return PartState(
        group=networks.group,
        network=networks.tensors(),
        twin=twin.tensors(),
        moments=[moments_of(*one) for one in zip(twin.groups, optimizers, strict=True)],
        survivors=survivors,
        epochs_done=torch.tensor([7, 4, 7, 4, 4, 4]),
        block_sums=torch.rand(9, 2, generator=generator),
        silent=torch.arange(9) == 4,
        n_epochs_done=4,
        period_loss=torch.rand(5, generator=generator),
        n_diverged=1,
        block_epochs=31,
    )


def by_block(state: PartState, n_blocks: int) -> list[tuple]:
    """What a state holds of each block that trains, in the order of the blocks; each network with its moments."""
    twin = BlockNetworks.make(state.group[state.survivors], SHAPES)
    moments = BlockNetworks.make(state.group[state.survivors], SHAPES)
    twin.load_tensors(state.twin)
    for network, of_group in zip(moments.groups, state.moments, strict=True):
        for parameter, (first, _) in zip(network.parameters(), of_group, strict=True):
            parameter.data = first
    order = state.survivors.argsort().tolist()
    return [(state.survivors[i].item(), state.epochs_done[i].item(), alone(twin, i), alone(moments, i)) for i in order]


def assert_same_states(one: PartState, other: PartState) -> None:
    """But for the order of the blocks that train."""
    for name in ("group", "block_sums", "silent"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    torch.testing.assert_close(one.period_loss, other.period_loss)
    for name in ("n_epochs_done", "n_diverged", "block_epochs"):
        assert getattr(one, name) == getattr(other, name)
    for mine, theirs in zip(one.network, other.network, strict=True):
        assert all(map(torch.equal, mine.values(), theirs.values()))
    for mine, theirs in zip(by_block(one, 9), by_block(other, 9), strict=True):
        assert mine[:2] == theirs[:2]
        for network, expected in zip(mine[2:], theirs[2:], strict=True):
            assert all(map(torch.equal, network.parameters(), expected.parameters()))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_state_that_processes_share_out_is_whole_when_it_is_merged(state, size):
    pieces = [PartState.from_record(state.split(rank, size).record()) for rank in range(size)]
    assert all((piece.epochs_done.diff() >= 0).all() for piece in pieces), "those that are as far lie together"
    assert_same_states(PartState.merge(pieces), state)


@pytest.mark.parametrize("size", [2, 3])
def test_a_process_takes_over_the_networks_of_its_blocks(networks, state, size):
    for rank in range(size):
        piece = state.split(rank, size)
        mine = BlockNetworks.make(piece.group, SHAPES)
        mine.load_tensors(piece.network)
        assert_same(mine, [alone(networks, block) for block in range(rank, 9, size)])
        of_whole = [one for one in by_block(state, 9) if one[0] % size == rank]
        for (block, epochs, twin, moments), wanted in zip(by_block(piece, 9), of_whole, strict=True):
            assert (block * size + rank, epochs) == wanted[:2]
            for network, expected in ((twin, wanted[2]), (moments, wanted[3])):
                assert all(map(torch.equal, network.parameters(), expected.parameters()))


def test_the_record_of_a_single_width_names_no_groups(state):
    only = replace(state, group=torch.zeros(9, dtype=torch.int8))
    for name in ("network", "twin", "moments"):
        setattr(only, name, getattr(state, name)[:1])
    record = only.record()
    assert "group" not in record
    assert record["network"] is only.network[0]
    again = PartState.from_record(record)
    assert torch.equal(again.group, only.group)
    assert all(getattr(again, name)[0] is record[name] for name in ("network", "twin", "moments"))


def test_what_a_backend_cannot_compute_is_left_to_the_reference(capsys):
    class Narrow:
        """Of at most 4 units."""

        @staticmethod
        def prepare(shape: NetworkShape) -> None:
            if shape.n_hidden > 4:
                raise KernelError("too wide for it")

        @staticmethod
        def predict(network: BlockNetwork, index: torch.Tensor, coords: torch.Tensor) -> torch.Tensor:
            return torch.full((len(index), len(coords), 1), 7.0)

    shapes = [NetworkShape(n_in=2, n_out=1, n_layers=2, n_hidden=units) for units in (4, 5)]
    networks = BlockNetworks.make(torch.tensor([1, 0, 1], dtype=torch.int8), shapes)
    coords = torch.rand(3, 2)
    predicted = networks.predict(Narrow, torch.tensor([0, 1, 2]), coords)
    assert (predicted[1] == 7).all()
    assert torch.equal(predicted[::2], reference.predict(networks.groups[1], torch.tensor([0, 1]), coords))
    assert capsys.readouterr().err == "note: 5 units are computed by the reference backend (too wide for it)\n"
