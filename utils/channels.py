"""What the channels of a picture are: grey, RGB, RGBA, or *spectral*: measurements of any other kind, none of them
alpha."""

MOST_CHANNELS = 64


def n_colours(n_channels: int, spectral: bool = False) -> int:
    """Channels that PSNR and SSIM count: all but the alpha of an RGBA picture."""
    return 3 if n_channels == 4 and not spectral else n_channels


def n_shown(n_channels: int, spectral: bool = False) -> int:
    """Channels of a picture of 8 bits that stands for one: the first three, or the first alone, and alpha."""
    return n_channels if n_channels == 4 and not spectral else 3 if n_channels >= 3 else 1
