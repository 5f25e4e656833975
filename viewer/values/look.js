/**
 * The view of a volume of values that a hash tells; what is not understood is left out.
 *
 * at: [x, y, z], the voxel of level 0 that the slices go through; window: [low, high] in the values of the file
 * view: key of the plane that is seen alone, "solid", or "all"; channel; surface: a threshold in the values of the file
 * zoom, focus: [x, y, z]; level, opacity, camera: of the surface, as in pose.js
 */
export function readLook(hash) {
    const words = new URLSearchParams(hash.replace(/^#/, ""));
    const numbers = (name, ...lengths) => {
        const list = (words.get(name) || "none").split(",").map((word) => (word ? Number(word) : NaN));
        return lengths.includes(list.length) && list.every(Number.isFinite) ? list : null;
    };
    const window = numbers("window", 2);
    const camera = numbers("camera", 3, 6);
    return {
        at: numbers("at", 3),
        window: window && window[0] < window[1] ? window : null,
        view: words.get("view"),
        channel: words.get("channel"),
        surface: numbers("surface", 1)?.[0] ?? null,
        zoom: Math.max(numbers("zoom", 1)?.[0] ?? 1, 1),
        focus: numbers("focus", 3),
        level: numbers("level", 1)?.[0] ?? null,
        opacity: Math.min(Math.max(numbers("opacity", 1)?.[0] ?? 1, 0), 1),
        camera: camera && camera[2] > 0 ? camera : null,
    };
}

/** The hash of a view; what is as the page has it by itself is left out. */
export function writeLook({ at, window, view, channel, surface, zoom, focus, level, opacity, camera }) {
    const short = (number) => Number(number.toPrecision(6));
    const words = [`at=${at.join(",")}`];
    if (window) words.push(`window=${window.map(short).join(",")}`);
    if (view) words.push(`view=${view}`);
    if (channel) words.push(`channel=${channel}`);
    if (zoom > 1) words.push(`zoom=${short(zoom)}`, `focus=${focus.join(",")}`);
    if (surface !== null) {
        words.push(`surface=${short(surface)}`);
        if (level !== null) words.push(`level=${level}`);
        if (opacity < 1) words.push(`opacity=${opacity}`);
        if (camera) words.push(`camera=${camera.map((number, i) => Number(number.toFixed(i < 2 ? 2 : 3))).join(",")}`);
    }
    return `#${words.join("&")}`;
}
