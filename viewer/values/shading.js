const SHADES = 2 ** 16; // as many as a file can tell apart

/** Of each number in [0, 1], in equal steps, its shade, 0 to 255. window: [low, high] in the values of the file */
export function shadesOf(measure, [low, high]) {
    const scale = 255 / Math.max(high - low, Number.MIN_VALUE);
    const shades = new Uint8ClampedArray(SHADES);
    for (let i = 0; i < SHADES; i++) shades[i] = (measure.valueOf(i / (SHADES - 1)) - low) * scale;
    return shades;
}

/** A slice as a picture. channel: one that is grey, or null for the first three as red, green and blue */
export function pictureOf({ values, size: [rows, columns] }, shades, channel) {
    const picture = new ImageData(columns, rows);
    const pixels = new Uint32Array(picture.data.buffer);
    const [n, last] = [rows * columns, SHADES - 1];
    if (channel === null) {
        for (let i = 0; i < n; i++) {
            const [red, green, blue] = [i, i + n, i + 2 * n].map((at) => shades[(values[at] * last + 0.5) | 0]);
            pixels[i] = red | (green << 8) | (blue << 16) | 0xff000000;
        }
    } else {
        const first = channel * n;
        for (let i = 0; i < n; i++) pixels[i] = shades[(values[first + i] * last + 0.5) | 0] * 0x010101 | 0xff000000;
    }
    return picture;
}
