export const AXES = "xyz";

/**
 * The view of a volume that a hash tells; what is not understood is left out.
 *
 * camera: [azimuth, elevation, distance, target x, y, z] or the first three of it; level; opacity; up: "y" or "z"
 * cut: null, or { axis, part, isFlipped } of cut.js; boxes: [level, ...]
 * slices: of each of x, y, z the voxel of level 0 at which it is cut, or null
 */
export function readPose(hash) {
    const words = new URLSearchParams(hash.replace(/^#/, ""));
    const list = (name) => (words.get(name) ?? "").split(",").filter((word) => word !== "");
    const camera = list("camera").map(Number);
    const cut = list("clip").join(",").match(/^(-?)([xyz]),([\d.]+)$/);
    return {
        camera: [3, 6].includes(camera.length) && camera.every(Number.isFinite) && camera[2] > 0 ? camera : null,
        level: /^\d+$/.test(words.get("level")) ? Number(words.get("level")) : null,
        opacity: words.has("opacity") ? Math.min(Math.max(Number(words.get("opacity")) || 0, 0), 1) : 1,
        up: words.get("up") === "z" ? "z" : "y",
        cut: cut && { axis: AXES.indexOf(cut[2]), part: Math.min(Number(cut[3]) || 0, 1), isFlipped: cut[1] === "-" },
        slices: [...AXES].map((axis) => voxelOf(list("slices").find((word) => word[0] === axis))),
        boxes: list("boxes").filter((word) => /^\d+$/.test(word)).map(Number),
    };
}

const voxelOf = (word) => (/^[xyz]\d+$/.test(word) ? Number(word.slice(1)) : null);

/** The hash of a view; what is as the page has it by itself is left out. */
export function writePose({ camera, level, opacity, up, cut, slices, boxes }) {
    const rounded = camera.map((number, i) => Number(number.toFixed(i < 2 ? 2 : 3)));
    const isCentred = rounded.slice(3).every((number) => number === 0);
    const words = [`camera=${(isCentred ? rounded.slice(0, 3) : rounded).join(",")}`, `level=${level}`];
    if (opacity < 1) words.push(`opacity=${opacity}`);
    if (up === "z") words.push("up=z");
    if (cut) words.push(`clip=${cut.isFlipped ? "-" : ""}${AXES[cut.axis]},${cut.part}`);
    const cuts = slices.flatMap((voxel, axis) => (voxel === null ? [] : [`${AXES[axis]}${voxel}`]));
    if (cuts.length) words.push(`slices=${cuts.join(",")}`);
    if (boxes.length) words.push(`boxes=${boxes.join(",")}`);
    return `#${words.join("&")}`;
}
