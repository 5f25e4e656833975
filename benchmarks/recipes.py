"""Options of the seed's method for pictures of some megapixels, and for volumes of some million voxels."""

PICTURE = dict(n_scales=4, use_pe=True, n_layers=3, num_epochs=[50, 50, 50, 200])
MESH = dict(
    task="mesh",
    patch_size=[16],
    batch_size=512,
    n_scales=3,
    use_pe=True,
    n_freq=5,
    n_layers=2,
    n_hidden=8,
    loss_thr=5e-3,
    num_epochs=[50, 50, 150],
)
