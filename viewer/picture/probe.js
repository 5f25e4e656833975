/** The values, 0 to 255 a channel, of what is drawn at [row, column] of level 0: of the finest tile there, or null. */
export function pixelUnder(item, tiers, [row, column], nChannels) {
    const { source, tilesMatrix, viewer } = item;
    const point = new OpenSeadragon.Point((column + 0.5) / source.width, (row + 0.5) / source.width);
    for (let level = tiers.findLastIndex(({ kind }) => kind !== "enlarged"); level >= 0; level--) {
        const { x, y } = source.getTileAtPoint(level, point);
        const tile = tilesMatrix[level]?.[x]?.[y];
        if (!tile?.loaded) {
            continue;
        }
        const { scale, tile: size } = tiers[level];
        const at = [(row + 0.5) * scale - y * size[0], (column + 0.5) * scale - x * size[1]].map(Math.floor);
        const values = viewer.drawer.getDataToDraw(tile)?.getImageData(at[1], at[0], 1, 1).data;
        return values ? values.slice(0, nChannels) : null;
    }
    return null;
}
