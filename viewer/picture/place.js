/** The state in a hash: {zoom, x, y} or less, blocks: [level, ...], compare; what is not understood is left out. */
export function readPlace(hash) {
    const words = new URLSearchParams(hash.replace(/^#/, ""));
    const state = {};
    for (const name of ["zoom", "x", "y"]) {
        const value = Number.parseFloat(words.get(name));
        if (Number.isFinite(value)) {
            state[name] = value;
        }
    }
    state.blocks = (words.get("blocks") ?? "").split(",").filter((word) => /^\d+$/.test(word)).map(Number);
    state.compare = words.get("compare") ?? "off";
    return state;
}

/** The hash of a state: the zoom and centre as OpenSeadragon's bookmarks have them, and what else is on. */
export function writePlace({ zoom, x, y, blocks, compare }) {
    const words = Object.entries({ zoom, x, y }).map(([name, value]) => `${name}=${Number(value.toPrecision(10))}`);
    if (blocks.length) {
        words.push(`blocks=${blocks.join(",")}`);
    }
    if (compare !== "off") {
        words.push(`compare=${compare}`);
    }
    return `#${words.join("&")}`;
}
