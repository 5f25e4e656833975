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
UNIFORM = dict(n_layers=3, n_freq=6, n_hidden=18, lr=6e-2, betas=[0.9, 0.99], loss_thr=8e-5, stop_ratio=0.3)
"""The preset best for pictures with networks of one width, which the error of a block without one tells to make."""
