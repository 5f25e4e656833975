import { LEAST_RATIO } from "./source.js";

/**
 * Lets OpenSeadragon ask only for tiles of the levels that isWanted(level) names, and puts their edges on whole pixels
 * of the screen: neither seams nor stretched tiles. item: a TiledImage.
 */
export function steer(item, isWanted = () => true) {
    const compareTiles = item._compareTiles.bind(item);
    item._compareTiles = (best, tile, most) => (isWanted(tile.level) ? compareTiles(best, tile, most) : best);
    const positionTile = item._positionTile.bind(item);
    item._positionTile = (tile, ...others) => {
        positionTile(tile, ...others);
        const density = OpenSeadragon.pixelDensityRatio;
        for (const axis of ["x", "y"]) {
            const start = Math.round(tile.position[axis] * density);
            const stop = Math.round((tile.position[axis] + tile.size[axis]) * density);
            tile.position[axis] = start / density;
            tile.size[axis] = (stop - start) / density;
        }
    };
}

/** Screen pixels that a pixel of level 0 has, where the view is going; of the view as it is now if `now`. */
export function zoomOf(item, now = false) {
    const { viewport } = item.viewer;
    return item.viewportToImageZoom(viewport.getZoom(now)) * OpenSeadragon.pixelDensityRatio;
}

/** The tier that the zoom asks for, by its number: the finest whose pixels are not too small. */
export function wantedTier(item, tiers) {
    const zoom = zoomOf(item);
    const found = tiers.findLastIndex(({ scale }) => zoom / scale >= LEAST_RATIO);
    return Math.max(found, 0);
}

/**
 * Puts the pixels of the level on those of the screen where the zoom is a power of two, or so near to it that the eye
 * does not see the difference: the picture is then exact.
 */
export function snap(item) {
    const { viewport } = item.viewer;
    const zoom = zoomOf(item);
    const whole = 2 ** Math.round(Math.log2(zoom));
    if (Math.abs(zoom / whole - 1) > 2e-3) {
        return;
    }
    if (zoom !== whole) {
        viewport.zoomBy(whole / zoom, null, true);
    }
    const density = OpenSeadragon.pixelDensityRatio;
    const corner = viewport.pixelFromPoint(item.imageToViewportCoordinates(0, 0)).times(density);
    const off = new OpenSeadragon.Point(corner.x - Math.round(corner.x), corner.y - Math.round(corner.y));
    if (Math.hypot(off.x, off.y) > 1e-6) {
        viewport.panBy(viewport.deltaPointsFromPixels(off.divide(density)), true);
    }
}
