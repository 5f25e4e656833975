"""Figures with titles and axes, for notebooks and documents; what they show comes from utils.figures."""

import base64
import io
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
import trimesh
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from mpl_toolkits.mplot3d import Axes3D
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
from torch import Tensor

from utils.figures import LEVEL_COLOURS

_MESH_COLOUR = "#b8bcc4"
_INCHES = 14


def level_colour(level: int) -> str:
    return colors.to_hex(LEVEL_COLOURS[level % len(LEVEL_COLOURS)].tolist())


def show(panels: dict[str, Tensor], columns: int, legend: dict[str, str] | None = None) -> Figure:
    """Pictures side by side.

    Inputs
        panels: (c, h, w) in [0, 1], by their titles
        columns: pictures side by side
        legend: colours by their names
    """
    rows = -(-len(panels) // columns)
    heights = [picture.shape[1] / picture.shape[2] for picture in panels.values()]
    side = _INCHES / columns
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, figsize=(_INCHES, rows * (side * max(heights) + 0.35)), layout="compressed"
    )
    for place in axes.flat:
        place.axis("off")
    for place, (title, picture) in zip(axes.flat, panels.items(), strict=False):
        _draw_picture(place, picture)
        place.set_title(title, fontsize=10)
    if legend:
        handles = [Patch(color=colour, label=name) for name, colour in legend.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def _draw_picture(axes: Axes, picture: Tensor) -> None:
    pixels = picture[:3].permute(1, 2, 0).cpu().numpy()
    axes.imshow(pixels if len(picture) >= 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)


def show_blocks(picture: Tensor, summary: list[dict[str, Any]]) -> Figure:
    """A picture with its block decomposition, and which colour is which level."""
    legend = {
        f"level {entry['level']}: {entry['active_blocks']:,} of {entry['blocks']:,} blocks": level_colour(
            entry["level"]
        )
        for entry in summary
    }
    return show({"": picture}, columns=1, legend=legend)


def show_units(picture: Tensor, units: Tensor, in_words: str = "units of a hidden layer") -> Figure:
    """A picture, and beside it how many units the network of each block has.

    Inputs
        picture: (c, h, w) in [0, 1]
        units: (gh, gw), 0 where there is no network
        in_words: what is counted
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(_INCHES, _INCHES / 2), layout="constrained")
    _draw_picture(left, picture)
    found = [int(number) for number in units.unique()]
    places = torch.searchsorted(torch.tensor(found), units.contiguous())
    shown = right.imshow(places, cmap=plt.get_cmap("magma", len(found)), vmin=-0.5, vmax=len(found) - 0.5)
    bar = figure.colorbar(shown, ax=right, ticks=range(len(found)), label=in_words, shrink=0.9)
    bar.ax.set_yticklabels(found)
    for axes in (left, right):
        axes.axis("off")
    return figure


def show_parameters(summary: list[dict[str, Any]]) -> Figure:
    """Blocks and parameters of each level, as bars."""
    names = [f"level {entry['level']}\n{'x'.join(map(str, entry['size']))}" for entry in summary]
    shades = [level_colour(entry["level"]) for entry in summary]
    height = 0.9 + 0.55 * len(summary)
    figure, (blocks, parameters) = plt.subplots(1, 2, figsize=(_INCHES, height), layout="constrained")
    blocks.barh(names, [entry["blocks"] for entry in summary], color="0.9")
    bars = blocks.barh(names, [entry["active_blocks"] for entry in summary], color=shades)
    blocks.bar_label(bars, [f" {entry['active_blocks']:,} of {entry['blocks']:,}" for entry in summary])
    blocks.set_title("blocks with a network", fontsize=10)
    bars = parameters.barh(names, [entry["parameters"] for entry in summary], color=shades)
    parameters.bar_label(bars, [f" {entry['parameters']:,}" for entry in summary])
    parameters.set_title(f"parameters, {sum(entry['parameters'] for entry in summary):,} in all", fontsize=10)
    for axes in (blocks, parameters):
        axes.invert_yaxis()
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def show_mesh(mesh: trimesh.Trimesh) -> Figure:
    """A mesh from two opposite sides, y up."""
    figure = plt.figure(figsize=(_INCHES, _INCHES / 2), layout="constrained")
    for place, azimuth in enumerate((215, 35), 1):
        _draw_mesh(figure.add_subplot(1, 2, place, projection="3d"), mesh, azimuth, zoom=1.25)
    return figure


def show_facets(meshes: dict[str, trimesh.Trimesh]) -> Figure:
    """Meshes side by side, by their titles, each face in the shade of its own normal: steps show."""
    figure = plt.figure(figsize=(_INCHES, _INCHES / len(meshes)), layout="constrained")
    for place, (title, mesh) in enumerate(meshes.items(), 1):
        axes = figure.add_subplot(1, len(meshes), place, projection="3d", title=title)
        _draw_mesh(axes, mesh, azimuth=215, zoom=1.25, smooth=False)
    return figure


def show_boxes(mesh: trimesh.Trimesh, boxes: dict[int, np.ndarray]) -> Figure:
    """A mesh and the blocks of each level, the coarsest first; boxes are edges (n_edges, 2, 3)."""
    figure = plt.figure(figsize=(_INCHES, _INCHES / len(boxes)), layout="constrained")
    for place, (level, edges) in enumerate(sorted(boxes.items(), reverse=True), 1):
        axes = figure.add_subplot(1, len(boxes), place, projection="3d", title=f"level {level}")
        _draw_mesh(axes, mesh, azimuth=215, zoom=1)
        axes.add_collection3d(Line3DCollection(edges, colors=level_colour(level), linewidths=0.6))
    return figure


def _draw_mesh(
    axes: Axes3D, mesh: trimesh.Trimesh, azimuth: float, zoom: float, elevation: float = 20, smooth: bool = True
) -> None:
    """Angles in degrees. Light comes from beside the camera; `smooth` takes its normals from a copy without steps."""
    around, above = np.deg2rad([azimuth - 25, elevation + 20])
    towards_light = np.array([np.sin(around) * np.cos(above), np.sin(above), np.cos(around) * np.cos(above)])
    shaded = trimesh.smoothing.filter_taubin(mesh.copy(), iterations=30) if smooth else mesh
    brightness = 0.3 + 0.7 * (shaded.face_normals @ towards_light).clip(0)
    shades = brightness[:, None] * colors.to_rgb(_MESH_COLOUR)
    axes.add_collection3d(Poly3DCollection(mesh.triangles, facecolors=shades, linewidths=0, antialiased=False))
    low, high = mesh.bounds
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), zlim=(low[2], high[2]))
    axes.set_box_aspect(high - low, zoom=zoom)
    axes.view_init(elevation, azimuth, vertical_axis="y")
    axes.set_axis_off()


def explore_mesh(mesh: trimesh.Trimesh, boxes: dict[int, np.ndarray]) -> dict[str, Any]:
    """A mesh to turn around in a notebook, with the blocks of each level to switch on and off in the legend.

    Inputs
        boxes: edges (n_edges, 2, 3) of the blocks of each level
    Outputs
        for `IPython.display.display(..., raw=True)`: a plotly figure, and a picture for where it cannot be shown
    """
    corners = mesh.vertices.astype(np.float32)
    faces = mesh.faces.astype(np.uint16 if len(corners) <= 2**16 else np.uint32)
    figure = go.Figure(
        go.Mesh3d(
            **dict(zip("xyz", corners.T, strict=True)),
            **dict(zip("ijk", faces.T, strict=True)),
            color=_MESH_COLOUR,
            lighting={
                "ambient": 0.4,
                "diffuse": 0.8,
                "specular": 0.1,
                "facenormalsepsilon": 1e-30,  # triangles of the size of a voxel are too small for the default
                "vertexnormalsepsilon": 1e-30,
            },
            lightposition={"x": -2e4, "y": 3e4, "z": -4e4},  # from the camera's side
            name="mesh",
            showlegend=True,
            hoverinfo="skip",
        )
    )
    for level, edges in sorted(boxes.items(), reverse=True):
        gap = np.full((len(edges), 1, 3), np.nan)  # lifts the pen
        lines = np.concatenate([edges, gap], axis=1).reshape(-1, 3).astype(np.float32)
        figure.add_scatter3d(
            **dict(zip("xyz", lines.T, strict=True)),
            mode="lines",
            line={"color": level_colour(level), "width": 2},
            name=f"blocks of level {level}",
            visible=True if level == min(boxes) else "legendonly",
            hoverinfo="skip",
        )
    hidden = {"visible": False}
    figure.update_layout(
        height=600,
        margin=dict.fromkeys("lrtb", 0),
        legend={"x": 0, "y": 1},
        scene={
            "aspectmode": "data",
            **dict.fromkeys(("xaxis", "yaxis", "zaxis"), hidden),
            "camera": {"up": {"x": 0, "y": 1, "z": 0}, "eye": {"x": -1.1, "y": 0.7, "z": -1.6}},
        },
    )
    static = io.BytesIO()
    fallback = show_boxes(mesh, boxes)
    fallback.savefig(static, format="png", dpi=72)
    plt.close(fallback)
    return {
        "application/vnd.plotly.v1+json": figure.to_plotly_json(),
        "image/png": base64.b64encode(static.getvalue()).decode(),
    }
