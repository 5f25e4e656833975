"""What the machine has: memory, devices, streams, and errors that say that it has too little."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from models.block_networks import BlockNetworks
from models.shape import NetworkShape
from training.datamodule import Visit
from training.launch import place
from training.module import LevelModule
from training.stop import Enough
from utils import memory
from utils.devices import device_of
from utils.errors import InputError, is_out_of_memory, run_command
from utils.metrics import psnr
from utils.ranks import PeerLost, Ranks

GIB = 2**30


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": 8 * GIB, "memory.current": 5 * GIB, "memory.stat": f"anon 1\ninactive_file {GIB}\n"},
        {
            "memory/memory.limit_in_bytes": 8 * GIB,
            "memory/memory.usage_in_bytes": 5 * GIB,
            "memory/memory.stat": f"total_inactive_file {GIB}\n",
        },
    ],
    ids=["second_version", "first_version"],
)
def test_memory_is_what_a_container_has_left(tmp_path, monkeypatch, files):
    (tmp_path / "memory").mkdir()
    for name, content in files.items():
        (tmp_path / name).write_text(str(content))
    system = tmp_path / "meminfo"
    system.write_text(f"MemTotal: 99 kB\nMemAvailable: {6 * 2**20} kB\n")
    monkeypatch.setattr(memory, "_SYSTEM", system)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "nowhere")
    assert memory.available_memory() == 6 * GIB
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert memory.available_memory() == 4 * GIB, "files that are only cached can be dropped"


def test_a_container_without_a_limit_has_what_the_system_has(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("123\n")
    (tmp_path / "meminfo").write_text("MemAvailable: 77 kB\n")
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert memory.available_memory() == 77 * 1024
    monkeypatch.setattr(memory, "_SYSTEM", tmp_path / "nowhere")
    assert memory.available_memory() is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("the tensor has a non-zero number of elements, but its storage was not allocated"), False),
        (RuntimeError("unable to mmap 8 bytes from file <l0.ckpt>: Cannot allocate memory (12)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) == expected


def test_auto_is_a_cuda_device_or_the_cpu_but_no_apple_gpu(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of("auto") == "cpu"
    assert device_of("mps") == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of("auto") == "cuda"


def test_more_processes_than_devices_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="--devices 3: --accelerator gpu finds 2 here; use at most that many"):
        place(Ranks(), "gpu", 3)
    assert place(Ranks(rank=3, size=4, local_rank=1, n_local=2), "gpu", 2) == torch.device("cuda", 1)
    assert place(Ranks(), "gpu", 1) == torch.device("cuda", 0)  # Lightning wants a GPU's number
    assert place(Ranks(), "cpu", 64) == torch.device("cpu")


def ends(main: Callable[[], None]) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        run_command(main)
    return end.value.code


def test_where_the_reader_of_the_output_leaves_a_program_ends_in_silence(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert ends(lambda: print("a line")) == 141
        monkeypatch.undo()
    assert capsys.readouterr() == ("", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_output_that_cannot_be_written_is_an_error(monkeypatch):
    with open("/dev/full", "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert ends(lambda: print("a line")) == "error: the output cannot be written: No space left on device"
        monkeypatch.undo()


def test_a_program_prints_in_vain_where_its_streams_are_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    run_command(lambda: sys.stderr.write("a line"))
    streams = sys.stdout, sys.stderr
    assert ends(lambda: sys.exit("error: a line")) == "error: a line"
    monkeypatch.undo()
    for stream in streams:
        stream.close()


class SinglePrecision(torch.Tensor):
    """A tensor on a device that knows no double precision, as Apple's GPUs do not."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), keywords=None):
        keywords = keywords or {}
        if function is torch.Tensor.cpu:
            return arguments[0].as_subclass(torch.Tensor)
        if any(value is torch.float64 for value in (*arguments, *keywords.values())):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return super().__torch_function__(function, types, arguments, keywords)


def test_losses_are_summed_where_double_precision_is_known(monkeypatch):
    losses = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(TypeError, match="float64"):
        losses.as_subclass(SinglePrecision).sum(1, dtype=torch.float64)

    class Backend:
        prepare = staticmethod(lambda shape: None)
        fit_points = staticmethod(lambda *_: losses.as_subclass(SinglePrecision))

    shape = NetworkShape(n_in=2, n_out=1, n_layers=2, n_hidden=3)
    spec = SimpleNamespace(
        index=0,
        seed=0,
        n_epochs=2,
        val_freq=2,
        batch_size=4,
        lr=0.1,
        optimizer="radam",
        betas=(0.9, 0.9),
        starts_fitted=False,
        is_even=False,
    )
    module = LevelModule(
        BlockNetworks.make(torch.zeros(2, dtype=torch.int8), [shape]),
        torch.rand(4, 2),
        spec,
        backend=Backend,
        metric=psnr,
        block_sums=torch.zeros(2, 2),
        other_sums=torch.zeros(2),
        ranks=Ranks(),
        enough=Enough(None, None, Ranks()),
    )
    module.trainer = SimpleNamespace(optimizers=module.configure_optimizers())
    module.training_step(Visit(slice(0, 2), range(2), torch.zeros(2, 4, 1)), 0)
    assert module.period_loss.tolist() == [3.0, 7.0]


def test_a_peer_is_lost_where_a_collective_fails_but_not_for_lack_of_memory(monkeypatch):
    def fails(message: str) -> None:
        def collective(*_, **options) -> None:
            raise RuntimeError(message)

        monkeypatch.setattr("utils.ranks.dist.all_reduce", collective)

    ranks = Ranks(rank=1, size=2)
    fails("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:20837")
    with pytest.raises(PeerLost, match="closed by peer"):
        ranks.max(3)
    fails("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory")
    with pytest.raises(RuntimeError) as raised:
        ranks.max(3)
    assert not isinstance(raised.value, PeerLost)
