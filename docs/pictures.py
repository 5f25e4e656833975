"""The README's pictures, from the runs that its commands leave in ckpts/.

In the project's folder: python -m docs.pictures
"""

from functools import partial
from pathlib import Path

from datasets.sources import read_picture
from models.miner import MINER
from utils.figures import block_boxes, draw_blocks
from utils.plots import show, show_boxes, show_facets
from utils.surface import extract_surface

FOLDER = Path(__file__).parent


def main() -> None:
    pluto = MINER.load("ckpts/quickstart")
    picture = pluto.decode()
    panels = {
        "original": read_picture(pluto.options["path"], pluto.size).values,
        "reconstruction": picture,
        "blocks that have a network": draw_blocks(picture, pluto.active_grids, pluto.patch_size),
    }
    show(panels, columns=3).savefig(FOLDER / "pluto.jpg", dpi=130, bbox_inches="tight")

    eye = partial(MINER.load("ckpts/astronaut").decode, crop=((70, 114), (214, 269)), scale=8)
    zooms = {f"--between {reading}": eye(between=reading) for reading in ("networks", "lanczos", "sharp")}
    show(zooms, columns=3).savefig(FOLDER / "zoom.jpg", dpi=80, bbox_inches="tight")

    spot = MINER.load("ckpts/spot_128")
    boxes = block_boxes(spot.active_grids, spot.patch_size, spot.size, spot.frame)
    show_boxes(spot.surface(), boxes).savefig(FOLDER / "spot.jpg", dpi=100, bbox_inches="tight")
    bits = (spot.decode()[0] > 0.5).float().numpy()
    surfaces = {
        "voxels inside or outside, as bits tell": extract_surface([bits], spot.frame, spot.size),
        "the fit, of distances": spot.surface(),
    }
    show_facets(surfaces).savefig(FOLDER / "surfaces.jpg", dpi=80, bbox_inches="tight")


if __name__ == "__main__":
    main()
