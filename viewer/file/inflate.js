/** What a stream of zlib's holds; an error if it is damaged, or holds more than `most` bytes. */
export async function inflatedUpTo(data, most) {
    const reader = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
    const parts = [];
    let length = 0;
    for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
        parts.push(value);
        length += value.length;
        if (length > most) {
            await reader.cancel();
            throw new Error("too long a stream");
        }
    }
    const bytes = new Uint8Array(length);
    parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
    return bytes;
}
