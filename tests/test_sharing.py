import pytest
import torch
from helpers import SMALL_FIT, checkpoints, one_group, random_network

from models.block_mlp import BlockMLP
from models.encoding import encode, encoded_width, frequencies, nested, restriction
from models.level import Level
from models.shape import NetworkShape
from models.sharing import share_weights_
from utils.blocks import block_coords, grid_shape
from utils.pyramid import level_size


def make_level(size: tuple[int, ...], encoding: tuple[float, ...] | None, residual: bool, seed: int, **shape) -> Level:
    """A level of which every third block has no network."""
    patch_size = (6,) * len(size)
    active = torch.arange(torch.tensor(grid_shape(size, patch_size)).prod()) % 3 != 2
    shape = NetworkShape(n_in=encoded_width(len(size), encoding), n_out=2, n_layers=3, n_hidden=5, **shape)
    network = random_network(int(active.sum()), shape, seed)
    return Level(size, patch_size, encoding, residual, one_group(active), (network,))


def hidden_features(network: BlockMLP, coords: torch.Tensor) -> list[torch.Tensor]:
    """After each hidden layer, (n_blocks, n_points, n_hidden)."""
    features = [coords]
    for layer in range(network.shape.n_layers - 1):
        x = features[-1] @ network.weight[layer] + network.bias[layer]
        if network.shape.activation == "gaussian":
            h = torch.exp(-0.5 * (x / network.a[layer]) ** 2) - network.shape.centre
        else:
            h = torch.sin(network.shape.omega * x)
        features.append(h)
    return features[1:]


def families(size: tuple[int, ...], fine: Level, coarse: Level) -> list[tuple[int, int, torch.Tensor]]:
    """By the pixels that they cover: row of a network, row of its parent's, coordinates of its points in the parent."""
    found = []
    active = fine.active_grid.flatten()
    child_rows, parent_rows = active.cumsum(0) - 1, coarse.active_grid.flatten().cumsum(0) - 1
    for block in active.nonzero().flatten():
        place = torch.stack(torch.unravel_index(block, fine.active_grid.shape))
        centres = (place + (block_coords(fine.patch_size) + 1) / 2) * 6 / 2  # in pixels of the coarse level
        parent_place = torch.div(centres[0], 6, rounding_mode="floor").long()
        if coarse.active_grid[tuple(parent_place)]:
            parent = int(parent_rows.view(coarse.active_grid.shape)[tuple(parent_place)])
            found.append((int(child_rows[block]), parent, (centres / 6 - parent_place) * 2 - 1))
    assert found
    return found


@pytest.mark.parametrize("encoding", [None, frequencies(3, "octaves"), frequencies(2, "harmonics")])
@pytest.mark.parametrize("n_dims", [2, 3])
def test_an_encoding_in_a_part_of_a_block_follows_from_that_of_the_part(n_dims, encoding):
    coords = torch.rand(50, n_dims) * 2 - 1
    coarse, fine = nested(encoding, 1), nested(encoding, 2)
    for offset in [(-0.5, 0.5, 0.5), (0.5, -0.5, -0.5)]:
        matrix, constant = restriction(offset[:n_dims], fine, coarse)
        parts = encode(coords, fine) @ matrix + constant
        whole = encode(coords / 2 + torch.tensor(offset[:n_dims]), coarse)
        torch.testing.assert_close(parts, whole, atol=2e-6, rtol=0)


def test_a_finer_level_has_its_own_frequencies_and_half_of_each_of_the_coarser_level():
    assert nested((1.0, 2.0, 4.0), 0) == (1.0, 2.0, 4.0)
    assert nested((1.0, 2.0, 4.0), 2) == (0.25, 0.5, 1.0, 2.0, 4.0)
    assert nested((3.0, 6.0), 2) == (0.75, 1.5, 3.0, 6.0)
    assert nested((3.0, 6.0, 9.0), 1) == (1.5, 3.0, 4.5, 6.0, 9.0)


@pytest.mark.parametrize(
    "activation",
    [dict(output="sine"), dict(output="sine", centre=0.5), dict(activation="sine", output="linear", omega=30.0)],
    ids=["gaussian", "centred", "sine"],
)
@pytest.mark.parametrize("encoding", [None, frequencies(3, "octaves"), frequencies(2, "harmonics")])
@pytest.mark.parametrize("size", [(40, 23), (13, 20, 9)])
def test_inherited_hidden_features_are_the_parents_at_the_same_places(size, encoding, activation):
    coarse = make_level(level_size(size, 1), nested(encoding, 1), True, seed=1, **activation)
    fine = make_level(size, nested(encoding, 2), True, seed=2, **activation)
    share_weights_(fine, fine.active_grid.flatten().nonzero().squeeze(1), coarse, "inherit")
    coords = encode(block_coords(fine.patch_size), fine.frequencies)
    theirs = hidden_features(fine.networks[0], coords)
    for child, parent, places in families(size, fine, coarse):
        wanted = hidden_features(coarse.networks[0].select(torch.tensor([parent])), encode(places, coarse.frequencies))
        for mine, parents in zip(theirs, wanted, strict=True):
            torch.testing.assert_close(mine[child], parents[0], atol=3e-4, rtol=0)
        assert (fine.networks[0](coords)[child] == 0).all()


def test_where_networks_predict_the_signal_itself_they_inherit_that():
    size = (40, 23)
    coarse = make_level(level_size(size, 1), None, False, seed=1, output="sigmoid")
    fine = make_level(size, None, False, seed=2, output="sigmoid")
    share_weights_(fine, fine.active_grid.flatten().nonzero().squeeze(1), coarse, "inherit")
    predicted = fine.networks[0](block_coords(fine.patch_size))
    for child, parent, places in families(size, fine, coarse):
        torch.testing.assert_close(predicted[child], coarse.networks[0](places)[parent], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("size", "factor"), [((40, 23), 0.5), ((13, 20, 9), 1.0)])
def test_copies_have_the_parents_parameters_halved_for_pictures(size, factor):
    coarse = make_level(level_size(size, 1), None, False, seed=1, output="sigmoid")
    fine = make_level(size, None, True, seed=2, output="sine")
    before = fine.networks[0].select(torch.arange(fine.networks[0].n_blocks))
    share_weights_(fine, fine.active_grid.flatten().nonzero().squeeze(1), coarse, "copy")
    theirs, old = dict(coarse.networks[0].named_parameters()), dict(before.named_parameters())
    related = {child: parent for child, parent, _ in families(size, fine, coarse)}
    assert len(related) < fine.networks[0].n_blocks, "some have no parent"
    for name, mine in fine.networks[0].named_parameters():
        for child in range(fine.networks[0].n_blocks):
            shared = child in related and name in theirs
            assert torch.equal(mine[child], factor * theirs[name][related[child]] if shared else old[name][child])
    assert torch.equal(fine.networks[0].amplitude, before.amplitude)


GABOR = dict(kind="filters", activation="gabor", output="linear", omega=5.0)


@pytest.mark.parametrize("size", [(40, 23), (13, 20, 9)])
def test_inherited_filters_are_the_parents_at_the_same_places(size):
    """The products of Gabor filters that the last layer takes."""
    coarse = make_level(level_size(size, 1), None, True, seed=1, **GABOR)
    fine = make_level(size, None, True, seed=2, **GABOR)
    share_weights_(fine, fine.active_grid.flatten().nonzero().squeeze(1), coarse, "inherit")
    assert (fine.networks[0](block_coords(fine.patch_size))[families(size, fine, coarse)[0][0]] == 0).all()
    last = dict(fine.networks[0].named_parameters())
    for child, parent, places in families(size, fine, coarse):
        for name in ("weight.1", "bias.1"):
            last[name].data[child] = coarse.networks[0].get_parameter(name)[parent]
        predicted = fine.networks[0](block_coords(fine.patch_size))[child]
        torch.testing.assert_close(predicted, coarse.networks[0](places)[parent], atol=1e-4, rtol=0)


@pytest.mark.parametrize("how", ["copy", "inherit"])
def test_weights_are_shared_alike_in_parts_and_when_a_run_goes_on(command, tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    fit = [*SMALL_FIT, "--weight_sharing", how, "--val_freq", 30]
    assert command("train.py", *fit).status == 0
    whole = checkpoints(tmp_path)
    assert command("train.py", *fit, "--overwrite", "--max_blocks", 7).status == 0
    assert whole == checkpoints(tmp_path)
    (tmp_path / "ckpts" / "small" / "l0.ckpt").unlink()
    assert command("train.py", *fit, "--resume").status == 0
    assert whole == checkpoints(tmp_path)
