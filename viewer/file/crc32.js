/** CRC-32 as of zlib and PNG. */

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
    let value = byte;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
    return value;
});

/** Of `bytes`, or of what had the CRC-32 `start` followed by `bytes`. */
export function crc32(bytes, start = 0) {
    let value = ~start;
    for (let i = 0; i < bytes.length; i++) value = CRC_TABLE[(value ^ bytes[i]) & 255] ^ (value >>> 8);
    return ~value >>> 0;
}

/** The CRC-32 of a chunk after the numbers of its level and of itself, so that no other will do in its place. */
export function chunkChecksum(level, number, data) {
    return crc32(data, crc32(new Uint8Array(littleEndian(level, number))));
}

function littleEndian(...numbers) {
    return numbers.flatMap((number) => [0, 8, 16, 24].map((shift) => (number >>> shift) & 255));
}
