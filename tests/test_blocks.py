import torch

from utils.blocks import block_coords, gather_blocks, grid_shape, pad_to_blocks, true_points, view_blocks, write_view_


def test_writing_inverts_gathering():
    for size, patch_size in [((45, 70), (16, 16)), ((25, 50), (25, 10)), ((9, 10, 17), (4, 5, 6)), ((3, 2), (8, 8))]:
        canvas = pad_to_blocks(torch.rand(3, *size), patch_size)
        blocks = torch.arange(torch.tensor(grid_shape(size, patch_size)).prod())
        copied = torch.full_like(canvas, torch.nan)
        write_view_(view_blocks(copied, patch_size), blocks, gather_blocks(canvas, patch_size, blocks))
        assert torch.equal(copied, canvas)


def test_a_block_holds_its_own_pixels():
    canvas = torch.arange(4.0 * 6).view(1, 4, 6)
    second_row_last_column = gather_blocks(canvas, (2, 3), torch.tensor([3]))
    assert second_row_last_column.flatten().tolist() == [15, 16, 17, 21, 22, 23]


def test_padding_replicates_the_edge_and_is_no_true_point():
    signal = torch.arange(6.0).view(1, 2, 3)
    assert pad_to_blocks(signal, (2, 2))[0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5]]
    assert true_points((2, 3), (2, 2), torch.tensor([0, 1])).tolist() == [[True] * 4, [True, False, True, False]]


def test_true_points_count_every_pixel_once():
    for size, patch_size in [((45, 70), (16, 16)), ((9, 10, 17), (4, 5, 6))]:
        blocks = torch.arange(torch.tensor(grid_shape(size, patch_size)).prod())
        assert true_points(size, patch_size, blocks).sum() == torch.tensor(size).prod()


def test_blocks_tile_the_domain_without_gap_or_overlap():
    coords = block_coords((4, 2))
    assert coords[:, 0].unique().tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert coords[:, 1].unique().tolist() == [-0.5, 0.5]
    assert coords[1].tolist() == [-0.75, 0.5], "the last axis runs fastest"


def test_odd_scales_keep_the_pixel_centres():
    plain = block_coords((25, 25)).view(25, 25, 2)
    dense = block_coords((25, 25), scale=3).view(75, 75, 2)
    assert torch.equal(dense[1::3, 1::3], plain)
