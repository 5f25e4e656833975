const BYTES = 50; // of a triangle: its normal, left as zeros for programs to find, three corners, and two bytes

/**
 * A surface as a binary STL file.
 *
 * @param parts [{ positions, indices, scale: [x, y, z], shift: [x, y, z] }, ...]: vertices are scale * position + shift
 * @returns {ArrayBuffer}
 */
export function stlOf(parts) {
    const count = parts.reduce((sum, { indices }) => sum + indices.length / 3, 0);
    const file = new DataView(new ArrayBuffer(84 + BYTES * count));
    file.setUint32(80, count, true);
    let at = 84;
    for (const { positions, indices, scale, shift } of parts) {
        for (let i = 0; i < indices.length; i++) {
            const corner = at + 12 + 12 * (i % 3);
            for (let axis = 0; axis < 3; axis++) {
                const place = scale[axis] * positions[3 * indices[i] + axis] + shift[axis];
                file.setFloat32(corner + 4 * axis, place, true);
            }
            if (i % 3 === 2) at += BYTES;
        }
    }
    return file.buffer;
}
