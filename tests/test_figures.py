import torch

from utils.figures import LEVEL_COLOURS, draw_blocks, highlight_blocks, thumbnail


def where(picture: torch.Tensor, level: int) -> list[list[int]]:
    return (picture == LEVEL_COLOURS[level][:, None, None]).all(0).nonzero().tolist()


def test_outlines_lie_on_the_borders_of_active_blocks():
    picture = torch.full((3, 12, 12), 0.5)
    active = torch.tensor([[False, False, False], [False, True, False], [False, False, False]])
    drawn = draw_blocks(picture, {0: active}, (4, 4))
    square = {(y, x) for y in range(4, 9) for x in range(4, 9) if (y in (4, 8) or x in (4, 8)) and (y, x) != (8, 8)}
    assert {tuple(place) for place in where(drawn, 0)} == square
    assert (drawn == 0.5).all(0).sum() == 144 - len(square)


def test_a_block_at_the_far_edge_is_closed_there():
    drawn = draw_blocks(torch.zeros(1, 8, 8), {0: torch.tensor([[False, False], [False, True]])}, (4, 4))
    assert [7, 5] in where(drawn, 0)
    assert [5, 7] in where(drawn, 0)
    assert [5, 5] not in where(drawn, 0)


def test_coarser_levels_are_drawn_over_finer_ones_at_their_own_size():
    fine, coarse = torch.ones(4, 4, dtype=torch.bool), torch.ones(2, 2, dtype=torch.bool)
    drawn = draw_blocks(torch.zeros(3, 16, 16), {0: fine, 1: coarse}, (4, 4))
    assert [8, 3] in where(drawn, 1), "a border of both levels"
    assert [4, 3] in where(drawn, 0), "a border of the finer level alone"


def test_a_crop_of_the_drawing_is_the_drawing_of_the_crop():
    picture = torch.rand(3, 64, 64)
    active = {0: torch.rand(8, 8) > 0.5, 1: torch.rand(4, 4) > 0.5}
    whole = draw_blocks(picture, active, (8, 8))
    crop = draw_blocks(picture[:, 3:40, 5:62], active, (8, 8), corner=(3, 5))
    assert torch.equal(crop[:, :-1, :-1], whole[:, 3:39, 5:61])


def test_highlighted_blocks_stay_and_others_are_dimmed():
    picture = torch.rand(3, 10, 10)
    shown = highlight_blocks(picture, (4, 4), torch.tensor([4]), dim=0.5)
    assert torch.equal(shown[:, 4:8, 4:8], picture[:, 4:8, 4:8])
    assert torch.equal(shown[:, :4], picture[:, :4] * 0.5)


def test_thumbnails_are_bounded_and_keep_the_mean():
    picture = torch.rand(3, 512, 2048)
    small = thumbnail(picture, 256)
    assert small.shape == (3, 64, 256)
    torch.testing.assert_close(small.mean(), picture.mean())
    assert thumbnail(picture, 4096) is picture
