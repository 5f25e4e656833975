"""Digests of the checkpoints that the README's recipes leave, to prove that a change of the code changes no result.

    python -m benchmarks.same_bytes > after.txt
    python -m benchmarks.same_bytes OTHER_CHECKOUT > before.txt
    diff before.txt after.txt

Every recipe is fitted by one process and by two, with both backends, at once and stopped and resumed on the way.
Digests compare on one machine only: another processor rounds differently.
"""

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

_HERE = Path(__file__).resolve().parent.parent
_EPOCHS = ["--num_epochs", "50", "50", "50", "200"]
_SEED = ["--use_pe", "--n_layers", "3", "--n_scales", "4", "--patch_size", "32", "32", "--batch_size", "256"]
_SEED_MESH = [
    *("--input_size", "128", "--patch_size", "16", "--batch_size", "512", "--use_pe", "--n_freq", "5"),
    *("--n_layers", "2", "--n_hidden", "8", "--loss_thr", "5e-3", "--b_chunks", "512"),
]
_MESH = ["--task", "mesh", "--path", "occupancy/spot_128.npy", "--n_scales", "3", "--num_epochs", "50", "50", "150"]
RECIPES = {
    "quickstart": ["--config", "configs/quickstart.yaml"],
    "astronaut": ["--preset", "best", "--path", "images/astronaut.png", "--n_scales", "4", *_EPOCHS],
    "astronaut_seed": ["--path", "images/astronaut.png", "--input_size", "512", "512", *_SEED, *_EPOCHS],
    "spot128": [*_MESH, "--preset", "best"],
    "spot128_seed": [*_MESH, *_SEED_MESH],
}
_STOP_IN = 2  # the level after whose checkpoint a run is stopped


def digest(folder: Path) -> str:
    """Of all checkpoints of a run."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("l*.ckpt")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:32]


def fit(checkout: Path, folder: Path, arguments: list[str], stop: bool) -> str:
    command = [sys.executable, str(checkout / "train.py"), *arguments, "--exp_name", "run"]
    options = dict(cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if stop:
        process = subprocess.Popen(command, **options)
        while process.poll() is None and not (folder / f"ckpts/run/l{_STOP_IN}.ckpt").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
        if process.returncode != 128 + signal.SIGTERM:
            raise SystemExit(f"not stopped: {error}")
        command.append("--resume")
    done = subprocess.run(command, **options)
    if done.returncode:
        raise SystemExit(done.stderr)
    return digest(folder / "ckpts/run")


def main() -> None:
    checkout = Path(sys.argv[1]).resolve() if sys.argv[1:] else _HERE
    cases = product(RECIPES.items(), ("fused", "reference"), (1, 2), (False, True))
    for (name, recipe), backend, devices, stop in cases:
        with tempfile.TemporaryDirectory() as place:
            for shipped in ("images", "configs", "meshes"):
                (Path(place) / shipped).symlink_to(_HERE / shipped)
            if "mesh" in recipe:
                command = [
                    sys.executable,
                    str(checkout / "preprocess_mesh.py"),
                    "--N",
                    "128",
                    "--path",
                    "meshes/spot.obj",
                ]
                subprocess.run(command, cwd=place, check=True, capture_output=True)
            more = ["--backend", backend, "--devices", str(devices), "--accelerator", "cpu"]
            found = fit(checkout, Path(place), [*recipe, *more], stop)
        print(name, backend, f"{devices} processes,", "resumed:" if stop else "at once:", found, flush=True)


if __name__ == "__main__":
    main()
