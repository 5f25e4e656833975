"""Formats of volumes that know axes, sizes and places of voxels: OME-Zarr, MetaImage and NRRD."""

import shutil
import sys

import numpy as np
import pytest
import zarr
from helpers import stored

from datasets.tasks import task_of_file
from datasets.volumes import format_of, open_volume
from utils.errors import InputError
from utils.transfer import Reading

nibabel, sitk = (pytest.importorskip(name) for name in ("nibabel", "SimpleITK"))

VALUES = np.random.default_rng(0).integers(0, 999, (2, 3, 5, 14, 17)).astype(np.uint16)  # t, c, z, y, x
PLACE = [[0.25, 0, 0, 1], [0, 0.5, 0, 2], [0, 0, 2.5, 3], [0, 0, 0, 1]]
SCALE, SHIFT = [1, 1, 2.5, 0.5, 0.25], [0, 0, 3, 2, 1]


def write_ome(path, zarr_format, values=VALUES, axes="tczyx"):
    kinds = {"t": "time", "c": "channel"}
    named = [
        {"name": name, "type": kinds.get(name, "space")} | ({} if name in kinds else {"unit": "micrometer"})
        for name in axes
    ]
    place = [
        {"type": "scale", "scale": SCALE[-len(axes) :]},
        {"type": "translation", "translation": SHIFT[-len(axes) :]},
    ]
    scales = [{"axes": named, "datasets": [{"path": "s0", "coordinateTransformations": place}]}]
    about = {"ome": {"version": "0.5", "multiscales": scales}} if zarr_format == 3 else {"multiscales": scales}
    group = zarr.create_group(path, zarr_format=zarr_format, attributes=about)
    group.create_array("s0", data=values, chunks=(1, 1, 4, 8, 8)[-len(axes) :])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("suffix", [".zarr", ".zip"])
def test_ome_zarr_tells_axes_and_place(tmp_path, zarr_format, suffix):
    write_ome(tmp_path / "a.zarr", zarr_format)
    if suffix == ".zip":
        shutil.make_archive(tmp_path / "a", "zip", tmp_path / "a.zarr")
    path = tmp_path / f"a{suffix}"
    assert task_of_file(str(path)) == "volume"
    source = open_volume(path, reading=Reading(time=2, channels=(3, 1)))
    assert np.array_equal(np.concatenate([stored(source, 0, 1), stored(source, 1, 5)], axis=1), VALUES[1, [2, 0]])
    assert source.affine == PLACE
    assert source.about["unit"] == "micrometer"


def test_floats_of_thick_chunks_are_encoded_in_thin_parts(tmp_path):
    values = np.random.default_rng(3).normal(size=(40, 300, 300)).astype(np.float32)
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(40, 64, 64), dimension_names=("z", "y", "x"))
    source = open_volume(tmp_path / "a.zarr")
    assert (source.transfer.low, source.transfer.high) == (values.min(), values.max())
    assert np.abs(source.transfer.decode(source.read(0, 40)[0] / 65535) - values).max() < np.ptp(values) / 2**16
    assert source.decode_bytes < 2 * values.nbytes + 2**27


def test_groups_of_bioformats2raw_hold_their_first_image(tmp_path):
    zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    write_ome(tmp_path / "a.zarr" / "0", 2, VALUES[0], "czyx")
    assert np.array_equal(stored(open_volume(tmp_path / "a.zarr"), 0, 5), VALUES[0])


@pytest.mark.parametrize(
    ("shape", "names", "task"),
    [
        ((70, 80, 90), None, "volume"),
        ((3, 80, 90), None, "image"),
        ((80, 90, 3), None, "image"),
        ((3, 80, 90), ("z", "y", "x"), "volume"),
        ((3, 80, 90), ("c", "y", "x"), "image"),
        ((2, 3, 8, 9), None, "volume"),
        ((2, 1, 8, 9), ("c", "z", "y", "x"), "image"),
        ((8, 9), None, "image"),
    ],
)
def test_a_zarr_tells_what_it_is_by_its_axes_or_its_shape(tmp_path, shape, names, task):
    zarr.create_array(tmp_path / "a.zarr", shape=shape, dtype="uint8", dimension_names=names)
    assert task_of_file(str(tmp_path / "a.zarr")) == task


@pytest.mark.parametrize("suffix", [".zarr", ".mha", ".nrrd", ".nii"])
@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32, np.float16])
def test_what_is_written_lies_where_it_did(tmp_path, suffix, n_channels, dtype):
    values = np.random.default_rng(1).integers(0, 99, (n_channels, 70, 9, 11)).astype(dtype)
    path, source = tmp_path / f"v{suffix}", {"affine": PLACE, "unit": "micrometer"}
    for _ in range(2):  # the second replaces the first
        format_of(path).check_replaceable(path)
        with format_of(path).writing(path, values.shape, values.dtype, source) as write:
            for start in (0, 1, 66):
                write(values[:, start : {0: 1, 1: 66, 66: 70}[start]])
    opened = open_volume(path)
    back = np.concatenate([stored(opened, 0, 60), stored(opened, 60, 70)], axis=1)
    assert np.abs(back.astype(float) - values).max() < 0.01
    unit = 1e-3 if suffix in (".mha", ".nrrd") else 1  # these are in millimetres
    assert np.allclose(opened.affine, np.diag([unit, unit, unit, 1]) @ PLACE)
    assert opened.about.get("unit") == (None if unit != 1 else "micrometer")
    assert task_of_file(str(path)) == "volume"


def test_another_folder_is_not_replaced(tmp_path):
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(ValueError, match="exists and is not a Zarr array; choose another name"):
        format_of(tmp_path / "mine.zarr").check_replaceable(tmp_path / "mine.zarr")


TURN = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])
SIDES, ORIGIN = (0.5, 0.6, 2.0), (1.0, 2.0, 3.0)
LPS = np.vstack([np.column_stack([TURN * SIDES, ORIGIN]), [0, 0, 0, 1]])  # as ITK has it
RAS = np.diag([-1, -1, 1, 1]) @ LPS


def itk_image(values, is_vector=False):
    image = sitk.GetImageFromArray(values, isVector=is_vector)
    image.SetSpacing(SIDES)
    image.SetOrigin(ORIGIN)
    image.SetDirection(TURN.ravel().tolist())
    return image


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".mhd", ".nrrd", ".nhdr", ".nii"])
def test_what_itk_writes_is_read_at_its_place(tmp_path, suffix, packed):
    path, values = tmp_path / f"a{suffix}", VALUES[0, 0]
    sitk.WriteImage(itk_image(values), path, packed)
    assert task_of_file(str(path)) == "volume"
    source = open_volume(path)
    assert np.array_equal(np.concatenate([stored(source, 0, 2), stored(source, 2, 5)], axis=1)[0], values)
    assert np.allclose(source.affine, RAS)
    assert (source.held_bytes > 0) == (suffix in (".nrrd", ".nhdr") or (packed and suffix in (".mha", ".mhd")))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_vectors_and_times_of_itk_are_read(tmp_path, suffix):
    sitk.WriteImage(itk_image(np.moveaxis(VALUES[0], 0, -1), is_vector=True), tmp_path / f"v{suffix}")
    assert np.array_equal(stored(open_volume(tmp_path / f"v{suffix}"), 1, 5), VALUES[0, :, 1:])
    sitk.WriteImage(sitk.JoinSeries([itk_image(one) for one in VALUES[:, 0]]), tmp_path / f"t{suffix}")
    source = open_volume(tmp_path / f"t{suffix}", reading=Reading(time=2))
    assert np.array_equal(stored(source, 1, 4)[0], VALUES[1, 0, 1:4])
    assert np.allclose(source.affine, RAS)


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".nii", ".nii.gz"])
def test_what_is_written_lies_at_the_same_place_for_itk(tmp_path, suffix, n_channels):
    path, values = tmp_path / f"v{suffix}", VALUES[0, :n_channels]
    with format_of(path).writing(path, values.shape, values.dtype, {"affine": RAS.tolist()}) as write:
        write(values[:, :2])
        write(values[:, 2:])
    image = sitk.ReadImage(path)
    back = sitk.GetArrayFromImage(image)
    assert np.array_equal(np.moveaxis(back, -1, 0) if n_channels > 1 else back[None], values)
    assert np.allclose(image.TransformIndexToPhysicalPoint((3, 4, 2)), (LPS @ [3, 4, 2, 1])[:3])
    if suffix.startswith(".nii"):
        assert np.allclose(nibabel.load(path).affine, RAS)


def test_units_of_nrrd_are_kept(tmp_path):
    sitk.WriteImage(itk_image(VALUES[0, 0]), tmp_path / "a.nrrd")
    data = (tmp_path / "a.nrrd").read_bytes().replace(b"kinds:", b'space units: "um" "um" "um"\nkinds:')
    (tmp_path / "a.nrrd").write_bytes(data)
    assert open_volume(tmp_path / "a.nrrd").about == {"unit": "micrometer"}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("a.mha", b"ElementSpacing = 0.5", b"ElementSpacing = 0", "has voxels with sides of 0, 0.6, 2; correct its"),
        ("a.mha", b"DimSize = 17 14 5", b"DimSize = 100000 100000 100000", "is damaged: it is cut short"),
        ("a.mha", b"ObjectType = Image", b"hello", "is not a readable MetaImage or NRRD file"),
        ("a.mha", b"MET_USHORT", b"MET_LONG_LONG", "holds values of kind 64-bit signed integer; use integers of up"),
        ("a.nrrd", b"(0,0,2)", b"(0,0,0)", "has voxels with sides of 0.5, 0.6, 0; correct its header"),
        ("a.nrrd", b"sizes: 17 14 5", b"sizes: 100000 100000 100000", "its levels take"),
        ("a.nrrd", b"sizes: 17 14 5", b"sizes: 17 14 6", "is damaged: its values cannot be read"),
    ],
)
def test_damaged_files_of_itk_are_refused_in_one_line(tmp_path, name, old, new, message):
    path = tmp_path / name
    sitk.WriteImage(itk_image(VALUES[0, 0]), path)
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    with pytest.raises(InputError) as error:
        stored(open_volume(path), 0, 1)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("size", "message"), [(None, "a.raw, which is not there"), (7, "a.raw is damaged: it is cut")])
def test_a_header_whose_values_are_missing_is_refused(tmp_path, capfd, size, message):
    sitk.WriteImage(itk_image(VALUES[0, 0]), tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    if size:
        (tmp_path / "a.raw").write_bytes(bytes(size))
    with pytest.raises(InputError, match=message):
        stored(open_volume(tmp_path / "a.mhd"), 0, 1)
    assert capfd.readouterr().err == ""


def test_metaimage_without_its_package_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.mha").write_bytes(b"ObjectType")
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(InputError, match="need the package SimpleITK; pip install SimpleITK"):
        open_volume(tmp_path / "a.mha")
