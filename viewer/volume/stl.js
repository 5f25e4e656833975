const BYTES = 50; // of a triangle: its normal, left as zeros for programs to find, three corners, and two bytes

/**
 * A surface as a binary STL file.
 *
 * @param parts [{ positions, indices, rows }, ...]: rows of three factors and a shift, for x, y, z of a vertex
 * @returns {ArrayBuffer}
 */
export function stlOf(parts) {
    const count = parts.reduce((sum, { indices }) => sum + indices.length / 3, 0);
    const file = new DataView(new ArrayBuffer(84 + BYTES * count));
    file.setUint32(80, count, true);
    let at = 84;
    for (const { positions, indices, rows } of parts) {
        const isMirrored = determinantOf(rows) < 0; // then the corners go around the other way
        for (let i = 0; i < indices.length; i++) {
            const corner = at + 12 + 12 * (isMirrored ? 2 - (i % 3) : i % 3);
            const from = 3 * indices[i];
            const [x, y, z] = [positions[from], positions[from + 1], positions[from + 2]];
            rows.forEach(([ofX, ofY, ofZ, shift], axis) => {
                file.setFloat32(corner + 4 * axis, ofX * x + ofY * y + ofZ * z + shift, true);
            });
            if (i % 3 === 2) at += BYTES;
        }
    }
    return file.buffer;
}

/** Of the first three numbers of three rows. */
export function determinantOf([[a, b, c], [d, e, f], [g, h, i]]) {
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}
