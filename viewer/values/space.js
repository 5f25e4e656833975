/** Where the voxels of a volume lie, and how slices of it are turned. Axes of voxels are 0, 1, 2: x, y, z. */

import { determinantOf } from "../volume/stl.js";

const THREE = [0, 1, 2];
const PLAIN = [1, -1, -1]; // without a body y goes down, as in pictures, and slices away from us
const UNITS = { nanometer: "nm", micrometer: "µm", centimeter: "cm", meter: "m" };
const ENDS = ["RL", "AP", "SI"]; // of each axis of the space: what is at the left or the top of a slice, and the other

/**
 * The three planes, as a radiologist looks at them where the file knows a body: as if facing the patient, or from the
 * feet. Screen directions then are those from right to left, front to back, and top to bottom of the patient. Files of
 * microscopes, whose unit is another than the millimetre, know sizes of voxels only.
 *
 * A plane is { key, name, across, right, down, ends }: the axis that it is across, those to the right and down on the
 * screen, each { axis, isFlipped, n, spacing }, and the letters at its left, right, top and bottom, or null.
 *
 * @param size [d, h, w] @param source of a header: its `affine` and `unit` are used
 */
export function planesOf(size, { affine, unit }) {
    const isKnown = isRegular(affine) && !unit;
    const along = isKnown ? alongSpace(affine) : THREE;
    const [x, y, z] = along.map((axis, direction) => ({
        axis,
        isFlipped: isKnown && affine[direction][axis] > 0,
        n: size[2 - axis],
        spacing: spacingOf(affine, axis),
        ends: isKnown ? ENDS[direction] : null,
    }));
    const names = isKnown ? ["Axial", "Coronal", "Sagittal"] : ["XY", "XZ", "YZ"];
    return [[z, x, y], [y, x, z], [x, y, z]].map(([across, right, down], i) => {
        const ends = isKnown ? [...right.ends, ...down.ends] : null;
        return { key: names[i].toLowerCase(), name: names[i], across, right, down, ends };
    });
}

/** Where a voxel lies, [x, y, z] in the unit of the file, or null where that is not known. */
export function spotOf(voxel, { affine }) {
    return affine && THREE.map((row) => affine[row][3] + THREE.reduce((sum, k) => sum + affine[row][k] * voxel[k], 0));
}

/** The unit of that, in short. */
export function unitInWords({ unit = null }) {
    return unit === null ? "mm" : UNITS[unit] ?? unit;
}

/**
 * How voxels are put into a ball of radius 1 around 0: { matrix: four rows of four, corner: [x, y, z] of the box around
 * all voxels, all negative, up: which axis of it points up }.
 */
export function placementOf(size, { affine, unit }) {
    const isKnown = isRegular(affine) && !unit;
    const plain = PLAIN.map((sign, axis) => [0, 0, 0].with(axis, sign * spacingOf(affine, axis)));
    const rows = isKnown ? affine.slice(0, 3).map((row) => row.slice(0, 3)) : plain;
    const along = [...size].reverse();
    const reach = rows.map((row) => row.reduce((sum, one, axis) => sum + (Math.abs(one) * along[axis]) / 2, 0));
    const radius = Math.hypot(...reach);
    const matrix = rows.map((row) => {
        const scaled = row.map((one) => one / radius);
        return [...scaled, -scaled.reduce((sum, one, axis) => sum + (one * (along[axis] - 1)) / 2, 0)];
    });
    return { matrix: [...matrix, [0, 0, 0, 1]], corner: reach.map((one) => -one / radius), up: isKnown ? "z" : "y" };
}

/** The length of a voxel along an axis, 1 where it is not known. */
function spacingOf(affine, axis) {
    return isRegular(affine) ? lengthOf(affine, axis) : 1;
}

const lengthOf = (affine, axis) => Math.hypot(...THREE.map((row) => affine[row][axis]));

/** Of each axis of the space, the axis of the voxels that goes along it most nearly; each goes along one. */
function alongSpace(affine) {
    const pairs = THREE.flatMap((axis) => THREE.map((direction) => ({
        axis, direction, cosine: Math.abs(affine[direction][axis]) / spacingOf(affine, axis),
    })));
    const along = [null, null, null];
    for (const { axis, direction } of pairs.sort((one, other) => other.cosine - one.cosine)) {
        if (along[direction] === null && !along.includes(axis)) along[direction] = axis;
    }
    return along;
}

/** Whether an affine is one by which a volume is a volume. */
function isRegular(affine) {
    if (!affine) return false;
    const lengths = THREE.map((axis) => lengthOf(affine, axis));
    return Math.abs(determinantOf(affine)) > 1e-6 * lengths[0] * lengths[1] * lengths[2];
}
