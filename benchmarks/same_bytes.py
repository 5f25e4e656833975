"""Digests of the checkpoints that the README's recipes leave, to prove that a change of the code changes no result.

    python -m benchmarks.same_bytes > after.txt
    python -m benchmarks.same_bytes OTHER_CHECKOUT > before.txt
    diff before.txt after.txt

Every recipe is fitted by one process and by two, with both backends, without a break and stopped and resumed midway.
Digests compare on one machine only: another processor rounds differently.
"""

import argparse
import hashlib
import shutil
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
_STOP_AFTER = 2  # the level after whose checkpoint a run is stopped


def digest(folder: Path) -> str:
    """Of all checkpoints of a run."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("l*.ckpt")):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:32]


def fit(program: Path, folder: Path, arguments: list[str], stop: bool) -> str:
    """The digest of a fit, which is stopped and resumed midway if asked for."""
    command = [sys.executable, str(program), *arguments, "--exp_name", "run"]
    options = dict(cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    run = folder / "ckpts/run"
    while stop:  # until a signal arrives in time
        shutil.rmtree(run, ignore_errors=True)
        process = subprocess.Popen(command, **options)
        while process.poll() is None and not (run / f"l{_STOP_AFTER}.ckpt").exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate()
        if process.returncode == 128 + signal.SIGTERM:
            command.append("--resume")
            break
        if process.returncode:
            raise SystemExit(error)
    done = subprocess.run(command, **options)
    if done.returncode:
        raise SystemExit(done.stderr)
    return digest(run)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path, nargs="?", default=_HERE, help="whose programs to run")
    parser.add_argument("--only", choices=list(RECIPES), nargs="+", default=list(RECIPES))
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    for name, backend, devices, stop in product(options.only, ("fused", "reference"), (1, 2), (False, True)):
        with tempfile.TemporaryDirectory() as place:
            for shipped in ("images", "configs", "meshes"):
                (Path(place) / shipped).symlink_to(_HERE / shipped)
            if "mesh" in RECIPES[name]:
                voxelize = [sys.executable, str(checkout / "preprocess_mesh.py"), "--N", "128"]
                subprocess.run([*voxelize, "--path", "meshes/spot.obj"], cwd=place, check=True, capture_output=True)
            more = ["--backend", backend, "--devices", str(devices), "--accelerator", "cpu"]
            found = fit(checkout / "train.py", Path(place), [*RECIPES[name], *more], stop)
        print(name, backend, f"{devices} processes,", "resumed:" if stop else "at once:", found, flush=True)


if __name__ == "__main__":
    main()
