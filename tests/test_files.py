"""Writes that fail: what is said, and what is there afterwards."""

import errno
import os
import resource
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from helpers import SMALL_FIT, checkpoints, is_one_line

import train
from utils import files
from utils.arrays import map_new_array
from utils.checkpoint import load_level, save_level
from utils.errors import InputError
from utils.files import aside, sync, unwritable, write_aside


@contextmanager
def files_up_to(n_bytes: int):
    """A disk on which no file grows beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_cannot_be_written_names_the_system_s_reason_wherever_it_fails(tmp_path):
    """torch.save hides it behind an error of its own."""
    path, old = tmp_path / "l0.ckpt", {"weights": torch.zeros(3)}
    save_level(path, old)
    before, large = path.read_bytes(), {"weights": torch.rand(100_000)}
    save_level(tmp_path / "whole.ckpt", large)
    size = (tmp_path / "whole.ckpt").stat().st_size
    for most in (0, 1, 5000, size // 2, size - 5000, size - 1):
        with files_up_to(most), pytest.raises(InputError, match=r"cannot write .*l0\.ckpt: File too large; raise the"):
            save_level(path, large)
        assert path.read_bytes() == before
        assert sorted(one.name for one in tmp_path.iterdir()) == ["l0.ckpt", "whole.ckpt"]
    with files_up_to(size):
        save_level(path, large)
    assert torch.equal(load_level(path)["weights"], large["weights"])


@pytest.mark.parametrize(
    ("call", "at"), [("open", 1), ("fsync", 1), ("replace", 1), ("replace", 2), ("replace", 3), ("replace", 4)]
)
def test_what_is_replaced_stays_until_the_new_file_is_in_its_place(tmp_path, monkeypatch, call, at):
    path, other, absent = tmp_path / "new", tmp_path / "other", tmp_path / "absent"
    before = {"new": b"old", "other": b"old as well"}
    for name, data in before.items():
        (tmp_path / name).write_bytes(data)

    place = files.Path if call == "open" else files.os
    do, calls = getattr(place, call), []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return do(*arguments)

    def fill():
        with aside(path, [other, absent]) as file:
            file.write(b"data")

    def there():
        return {one.name: one.read_bytes() for one in tmp_path.iterdir()}

    monkeypatch.setattr(place, call, fail)
    with pytest.raises(InputError, match=r"cannot write .*new: Read-only file system; make it writable"):
        fill()
    monkeypatch.undo()
    assert there() == before
    fill()
    assert there() == {"new": b"data"}


def test_a_flush_that_fails_names_the_file(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / "l0.npy").write_bytes(b"data")
    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(InputError, match=r"cannot write .*l0\.npy: Input/output error; check the disk"):
        sync(tmp_path / "l0.npy")


@pytest.mark.parametrize("preallocates", [True, False])
def test_a_mapped_file_has_its_room_before_it_is_filled(tmp_path, monkeypatch, preallocates):
    if not preallocates:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    shape = (3, 500_000)
    array = map_new_array(tmp_path / "x.npy", np.float32, shape)
    stat = (tmp_path / "x.npy").stat()
    assert stat.st_blocks * 512 >= stat.st_size > array.nbytes
    array[:] = 5
    assert np.array_equal(np.load(tmp_path / "x.npy"), np.full(shape, 5, np.float32))
    with files_up_to(array.nbytes // 2), pytest.raises(InputError, match=r"cannot write .*y\.npy: File too large"):
        map_new_array(tmp_path / "y.npy", np.float32, shape)
    assert [path.name for path in tmp_path.iterdir()] == ["x.npy"]


@pytest.mark.parametrize(
    ("number", "to_try"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "a larger quota"),
        (errno.EROFS, "make it writable"),
        (errno.EACCES, "another folder"),
        (errno.ENOENT, "make the folder first"),
        (errno.EIO, "check the disk"),
    ],
)
def test_what_to_try_fits_the_reason(number, to_try):
    said = str(unwritable("some/file", OSError(number, os.strerror(number))))
    assert said.startswith(f"cannot write some/file: {os.strerror(number)}; ")
    assert to_try in said


@pytest.fixture
def full_disk(monkeypatch):
    """Makes the n-th file that is flushed to the disk find it full."""

    def fill(n: int) -> None:
        flushed, fsync = [], os.fsync

        def flush(descriptor: int) -> None:
            flushed.append(descriptor)
            if len(flushed) == n:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            fsync(descriptor)

        monkeypatch.setattr(files.os, "fsync", flush)

    return fill


FIT = [*SMALL_FIT, "--num_epochs", 40, "--val_freq", 20]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("expected")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["train.py", *map(str, FIT)])
        train.cli()
    return checkpoints(folder)


@pytest.mark.parametrize(
    ("n", "name"),
    [
        (1, "state.ckpt"),
        (3, "l2.ckpt"),
        (5, "options.yaml"),
        (9, "l1.ckpt"),
        (15, "options.yaml"),
        (17, "metrics.json"),
    ],
)
def test_a_run_that_finds_the_disk_full_names_the_file_and_resumes(
    command, tmp_path, monkeypatch, full_disk, expected, n, name
):
    monkeypatch.chdir(tmp_path)
    full_disk(n)
    failed = command("train.py", *FIT)
    said = f"error: cannot write ckpts/small/{name}: No space left on device; free some space; resume with: python "
    assert failed.status.startswith(said)
    assert "Traceback" not in failed.error
    assert not list(tmp_path.glob("ckpts/small/.*.part"))
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    resumed = command("train.py", *failed.status.partition("train.py ")[2].split())
    assert resumed.status == 0, resumed.error
    assert checkpoints(tmp_path) == expected
    assert (tmp_path / "ckpts/small/options.yaml").exists()


def test_a_run_that_is_to_be_replaced_stays_whole_where_the_disk_is_full(
    command, tmp_path, monkeypatch, full_disk, expected
):
    monkeypatch.chdir(tmp_path)
    assert command("train.py", *FIT, "--num_epochs", 20).status == 0
    old = {path.name: path.read_bytes() for path in (tmp_path / "ckpts/small").iterdir()}
    full_disk(3)  # the coarsest level
    failed = command("train.py", *FIT, "--overwrite")
    assert "cannot write ckpts/small/l2.ckpt" in failed.error
    kept = {path.name: path.read_bytes() for path in (tmp_path / "ckpts/small").iterdir()}
    assert {name: kept.get(name) for name in old} == old
    (tmp_path / "ckpts/small/state.ckpt").unlink()  # as if there had been no room for it either
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    resumed = command("train.py", *failed.status.partition("train.py ")[2].split())
    assert resumed.status == 0, resumed.error
    assert checkpoints(tmp_path) == expected


def test_curves_that_cannot_be_written_cost_a_note_and_not_the_fit(command, tmp_path, monkeypatch, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").write_text("not a folder")
    outcome = command("train.py", *FIT, "--log_image")
    assert outcome.status == 0, outcome.error
    assert checkpoints(tmp_path).keys() == expected.keys()
    notes = [line for line in outcome.error.splitlines() if "note: the curves in logs/small" in line]
    assert len(notes) == 1
    assert "are incomplete: cannot write logs" in notes[0]
    assert "Traceback" not in outcome.error


def test_a_folder_that_cannot_be_written_is_named(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def fail(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "ckpts")

    monkeypatch.setattr(files.Path, "mkdir", fail)
    outcome = command("train.py", *FIT)
    assert is_one_line(outcome.error)
    assert "cannot write ckpts/small: Permission denied; make it writable" in outcome.error


def test_only_files_are_replaced(tmp_path):
    """As root, a device would be replaced like anything else."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to(os.devnull)
    before = sorted(tmp_path.iterdir())
    for name, kind in (("pipe", "a pipe or a device"), ("folder", "a folder"), ("device", "a pipe or a device")):
        with pytest.raises(InputError, match=f"{name} is {kind}; choose another name"):
            write_aside(tmp_path / name, b"new")
    assert sorted(tmp_path.iterdir()) == before


def test_writes_leave_nothing_where_the_folder_is_gone(tmp_path):
    with pytest.raises(InputError, match=r"cannot write .*x\.npy: No such file or directory; make the folder first"):
        write_aside(tmp_path / "gone" / "x.npy", b"data")
