"""Meshes damaged at random: they must hold the volume of the undamaged one, or a line must say why not.

    python -m tests.soak.meshes --n 340 MESH ...

A *change* turns a mesh over or adds balls to it: its voxels follow from those of the mesh and of the balls, each by
itself. *Damage* to faces should leave the voxels as they are. The log has a line for each case.
"""

import contextlib
import io
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from scipy.ndimage import distance_transform_edt

from benchmarks.records import Printer
from datasets.meshes import load_mesh
from datasets.voxelize import voxelize
from tests.soak.reports import Log, soak_parser
from utils.errors import InputError
from utils.frame import Frame

_SPOT = Path(__file__).parents[2] / "meshes" / "spot.obj"
_BOUNDS = {False: 0.001, True: 0.02}  # of voxels that are wrong, by the volume: without and with faces removed


@dataclass(frozen=True)
class Base:
    """An undamaged mesh.

    mesh: as it is loaded
    deepest: (3,) the point that is farthest from its outside
    depth: how far that is
    """

    mesh: trimesh.Trimesh
    deepest: np.ndarray
    depth: float

    @classmethod
    def load(cls, path: str, n: int) -> "Base":
        mesh = load_mesh(path)
        mesh.vertices = mesh.vertices.astype(np.float32)  # as the files of damaged meshes have them
        frame = Frame.around(mesh.vertices)
        inside = grid_of(mesh, frame, n)
        depth = distance_transform_edt(inside, sampling=frame.spacing(inside.shape)[::-1])
        place = np.array(np.unravel_index(depth.argmax(), depth.shape))[::-1]
        return cls(mesh, frame.to_mesh(place, inside.shape), depth.max() - np.linalg.norm(frame.spacing(inside.shape)))


@dataclass(frozen=True)
class Changed:
    """
    corners: (m, 3, 3) of all faces
    balls: those that were added
    expected: voxels of the mesh and of each ball -> voxels of the whole
    """

    corners: np.ndarray
    balls: list[trimesh.Trimesh]
    expected: Callable[..., np.ndarray]


def grid_of(mesh: trimesh.Trimesh, frame: Frame, n: int) -> np.ndarray:
    """(n, n, n) bool"""
    return np.unpackbits(voxelize(mesh, frame, n), axis=2, count=n).astype(bool)


def ball(centre: np.ndarray, radius: float) -> trimesh.Trimesh:
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    mesh.apply_translation(centre)
    return mesh


def over(*corners: np.ndarray) -> np.ndarray:
    """The faces turned over."""
    return np.concatenate(corners)[:, ::-1]


def either(rng: np.random.Generator, corners: np.ndarray) -> np.ndarray:
    return over(corners) if rng.random() < 0.5 else corners


def joined(*corners: np.ndarray) -> np.ndarray:
    return np.concatenate(corners)


def turned_over(base: Base, rng: np.random.Generator) -> Changed:
    return Changed(over(base.mesh.triangles), [], lambda mesh: mesh)


def body_beside(base: Base, rng: np.random.Generator) -> Changed:
    added = _ball_beside(base, rng)
    corners = joined(either(rng, base.mesh.triangles), either(rng, added.triangles))
    return Changed(corners, [added], lambda mesh, ball: mesh | ball)


def hollow_body_beside(base: Base, rng: np.random.Generator) -> Changed:
    outer = _ball_beside(base, rng)
    inner = ball(outer.centroid, 0.6 * outer.extents[0] / 2)
    shell = either(rng, joined(outer.triangles, over(inner.triangles)))
    return Changed(joined(base.mesh.triangles, shell), [outer, inner], lambda mesh, out, within: mesh | (out & ~within))


def body_across(base: Base, rng: np.random.Generator) -> Changed:
    added = ball(rng.choice(base.mesh.vertices), rng.uniform(0.1, 0.3) * base.mesh.extents.min())
    triangles = either(rng, added.triangles)
    if base.mesh.body_count > 1:  # an inside-out body that holds others could be one with cavities
        triangles = added.triangles
    return Changed(joined(base.mesh.triangles, triangles), [added], lambda mesh, ball: mesh | ball)


def body_inside(base: Base, rng: np.random.Generator) -> Changed:
    added = ball(base.deepest, rng.uniform(0.3, 0.9) * base.depth)
    return Changed(either(rng, joined(base.mesh.triangles, added.triangles)), [added], lambda mesh, ball: mesh)


def cavity(base: Base, rng: np.random.Generator) -> Changed:
    added = ball(base.deepest, rng.uniform(0.3, 0.9) * base.depth)
    corners = either(rng, joined(base.mesh.triangles, over(added.triangles)))
    return Changed(corners, [added], lambda mesh, ball: mesh & ~ball)


def body_in_a_cavity(base: Base, rng: np.random.Generator) -> Changed:
    hole, kernel = ball(base.deepest, 0.9 * base.depth), ball(base.deepest, 0.5 * base.depth)
    corners = joined(base.mesh.triangles, over(hole.triangles), either(rng, kernel.triangles))
    return Changed(corners, [hole, kernel], lambda mesh, hole, kernel: mesh & ~hole | kernel)


def _ball_beside(base: Base, rng: np.random.Generator) -> trimesh.Trimesh:
    radius = rng.uniform(0.1, 0.5) * base.mesh.scale / 2
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    return ball(base.mesh.bounding_box.centroid + direction * (base.mesh.scale / 2 + 1.1 * radius), radius)


def turn(corners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    chosen = rng.random(len(corners)) < rng.uniform(0, 0.3)
    return np.where(chosen[:, None, None], corners[:, ::-1], corners)


def double(corners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    share = rng.choice([rng.uniform(0, 1), 1])
    return joined(corners, over(corners[rng.random(len(corners)) < share]))


def repeat(corners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return joined(corners, corners[rng.random(len(corners)) < rng.uniform(0, 1)])


def remove(corners: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return corners[rng.random(len(corners)) > rng.uniform(0, 0.05)]


CHANGES = {
    "turned over": turned_over,
    "a body beside it": body_beside,
    "a hollow body beside it": hollow_body_beside,
    "a body across its surface": body_across,
    "a body inside it": body_inside,
    "a cavity": cavity,
    "a body in a cavity": body_in_a_cavity,
}
DAMAGES = {
    "faces turned": [turn],
    "faces doubled, both ways round": [double],
    "faces repeated": [repeat],
    "faces removed": [remove],
    "faces turned, doubled": [turn, double],
    "faces turned, removed": [turn, remove],
    "faces doubled, removed": [double, remove],
    "faces repeated, doubled, turned, removed": [repeat, double, turn, remove],
}


@dataclass(frozen=True)
class Outcome:
    """
    kind: of change and damage
    volume, voxels: the error of the volume, and the voxels that are wrong, as shares of the expected volume
    said: notes and the error, in lines
    fails: it is worse than it may be, and no error says so
    """

    kind: str
    volume: float
    voxels: float
    said: str
    fails: bool


def try_case(base: Base, n: int, folder: Path, rng: np.random.Generator) -> Outcome:
    changes, damages = rng.choice(["change", "damage", "both"]), rng.permutation(list(DAMAGES))
    change = None if changes == "damage" else rng.choice(list(CHANGES))
    damage = None if changes == "change" else damages[0]
    unchanged = Changed(base.mesh.triangles, [], lambda mesh: mesh)
    changed = unchanged if change is None else CHANGES[change](base, rng)
    corners = changed.corners
    for hurt in DAMAGES.get(damage, []):
        corners = hurt(corners, rng)
    path = folder / "damaged.ply"
    trimesh.Trimesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), process=False).export(path)
    kind = change or damage if None in (change, damage) else "change and damage"
    name = " + ".join(filter(None, [change, damage]))
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            loaded = load_mesh(str(path))
        except InputError as error:
            return Outcome(kind, 1.0, 1.0, f"{name}: {error}", False)
    frame = Frame.around(loaded.vertices)
    found = grid_of(loaded, frame, n)
    expected = changed.expected(*(grid_of(mesh, frame, n) for mesh in (base.mesh, *changed.balls)))
    volume, voxels = abs(int(found.sum()) - int(expected.sum())), (found ^ expected).sum()
    removed = damage is not None and remove in DAMAGES[damage]
    share = voxels / expected.sum()
    lines = f"{name}: {said.getvalue().strip().replace(str(path), 'it')}"
    return Outcome(kind, volume / expected.sum(), share, lines, share > _BOUNDS[removed])


def main() -> None:
    parser = soak_parser(__doc__, "meshes")
    parser.add_argument("meshes", nargs="*", default=[str(_SPOT)], help="undamaged; the one that ships by default")
    parser.add_argument("--n", type=int, default=300, help="cases, the meshes in turn")
    parser.add_argument("--voxels", type=int, default=64, help="along each axis")
    options = parser.parse_args()
    found, log = defaultdict(list), Log(options.log)
    bases = [Base.load(path, options.voxels) for path in options.meshes]
    with tempfile.TemporaryDirectory() as folder:
        for case in range(options.n):
            rng = np.random.default_rng([options.seed, case])
            outcome = try_case(bases[case % len(bases)], options.voxels, Path(folder), rng)
            found[outcome.kind].append(outcome)
            name, verdict = Path(options.meshes[case % len(bases)]).name, "BROKE" if outcome.fails else "ok"
            log(f"{case} {name} {verdict} {outcome.volume:.5f} {outcome.voxels:.5f} {outcome.said}")
    count = "One mesh" if len(bases) == 1 else f"{len(bases)} meshes in turn"
    printer = Printer(
        f"Damaged meshes, {options.voxels} voxels along each axis",
        ["damage", "tried", "worst error of the volume", "most voxels wrong", "with a note or an error"],
        options.out,
        f"{count}; shares of the volume that the undamaged mesh and what was added have, "
        f"each voxelized by itself. At most {_BOUNDS[False]:.1%} of the voxels may be wrong, {_BOUNDS[True]:.0%} where "
        "up to 5% of the faces are removed",
        command=f"python -m tests.soak.meshes --seed {options.seed} --n {options.n} MESH ...",
    )
    for kind in [kind for kind in (*DAMAGES, *CHANGES, "change and damage") if found[kind]]:
        outcomes = found[kind]
        worst = [max(getattr(outcome, what) for outcome in outcomes) for what in ("volume", "voxels")]
        noted = sum(not outcome.said.endswith(": ") for outcome in outcomes)
        printer.add(kind, len(outcomes), *(f"{share:.2%}" for share in worst), f"{noted / len(outcomes):.0%}")
    broken = sum(outcome.fails for outcomes in found.values() for outcome in outcomes)
    sys.exit(f"{broken} broke" if broken else 0)


if __name__ == "__main__":
    main()
