"""The decoder of the page, compiled: `python -m viewing.compile`, whenever a C source of it has changed."""

import shutil
import tempfile
from pathlib import Path

from utils.compiler import compile_source

SOURCE = Path(__file__).resolve().parent.parent / "viewer" / "decoder" / "decoder.c"
WASM = SOURCE.with_suffix(".wasm")
_FLAGS = (
    *("-target", "wasm32-freestanding", "-mcpu=generic+simd128", "-std=c11", "-O3", "-nostdlib"),
    *("-fvisibility=hidden", "-rdynamic", "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--export=__heap_base"),
)


def compile_decoder(path: Path) -> None:
    """KernelError if the compiler (the package ziglang) is missing or fails."""
    with tempfile.TemporaryDirectory() as folder:  # which the compiler leaves its cache in
        made = Path(folder) / path.name
        compile_source(SOURCE, _FLAGS, made)
        shutil.copyfile(made, path)


if __name__ == "__main__":
    compile_decoder(WASM)
    print(f"{WASM}: {WASM.stat().st_size:,} bytes")
