/** What OpenSeadragon asks for in place of an image: the tiers of a fit, coarse to fine, each in tiles. */

const FACTORS = [2, 4, 8, 16]; // samples a pixel of the tiers beyond the pixels
const SAMPLES = 256; // of a tile of those
export const LEAST_RATIO = 0.501; // screen pixels that a pixel of the tier asked for has at least

/**
 * The tiers of a picture: {kind, scale, size, tile, isQuick, ...}. scale: pixels of it in one of level 0; size, and tile
 * of one: [rows, columns]; isQuick: worth showing on the way to a finer tier, which needs its pixels anyway.
 */
export function tiersOf(fit) {
    const tiers = [];
    const levels = [...fit.levels.values()].filter((level) => level.index >= fit.finest);
    const { index: coarsest, size } = [...fit.levels.values()][0];
    if (fit.overview?.pictures.length) {
        const { pictures, tile } = fit.overview;
        const halvings = pictures.length - (pictures.at(-1).size.every((n, axis) => n === size[axis]) ? 1 : 0);
        pictures.forEach((picture, k) => tiers.push({
            kind: "overview", picture: k, scale: 2 ** (k - halvings - coarsest), size: picture.size, tile: [tile, tile],
            isQuick: true,
        }));
    }
    for (const level of levels) {
        const tile = level.patch.map((n, axis) => n * level.chunk[axis]);
        tiers.push({
            kind: "level", level: level.index, scale: 2 ** -level.index, size: level.size, tile, isQuick: level.isWhole,
        });
    }
    if (levels.length) {
        const finest = fit.levels.get(fit.finest);
        for (const factor of FACTORS) {
            tiers.push({
                kind: "enlarged", level: finest.index, factor, scale: factor / 2 ** finest.index,
                size: finest.size.map((n) => n * factor), tile: [SAMPLES, SAMPLES], isQuick: false,
            });
        }
    }
    return tiers;
}

/** Rows and columns of tiles of a tier. */
function tilesAlong({ size, tile }) {
    return size.map((n, axis) => Math.ceil(n / tile[axis]));
}

/** The place of a tile, [[top, bottom], [left, right]] in pixels of its tier; the last may reach beyond the picture. */
function placeOf({ tile, size }, place) {
    return place.map((k, axis) => [k * tile[axis], Math.min((k + 1) * tile[axis], size[axis])]);
}

/** A promise of what OpenSeadragon draws as a tile, and of its type's name. */
async function dataOf(tier, [row, column], tiles, options) {
    const number = row * tilesAlong(tier)[1] + column;
    if (tier.kind === "overview") {
        return [await tiles.overview(tier.picture, number, options), "imageBitmap"];
    }
    const { rgba, size } = await (tier.kind === "level"
        ? tiles.shown(tier.level, number, options)
        : tiles.enlarged(tier.factor, [row, column], SAMPLES, options));
    const canvas = document.createElement("canvas");
    [canvas.height, canvas.width] = size;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.putImageData(new ImageData(rgba, size[1], size[0]), 0, 0);
    return [context, "context2d"];
}

/**
 * The jobs of OpenSeadragon that wait for tiles of a fit, and those that failed.
 *
 * keepOnly(isWanted) gives up those whose tile, OpenSeadragon's, is no longer wanted; they may be asked for again.
 * retry() lets those that failed be asked for again.
 */
export class Jobs {
    #controllers = new Map();
    failed = new Map(); // OpenSeadragon's tile -> message

    get nWaiting() {
        return this.#controllers.size;
    }

    async start(job, tier, tiles) {
        const { tile } = job;
        const controller = new AbortController();
        this.#controllers.set(job, controller);
        const priority = tile.level + 1 - 1 / (1 + tile.squaredDistance); // coarse to fine, the middle first
        try {
            const options = { priority, signal: controller.signal, rgba: true };
            const [data, type] = await dataOf(tier, [tile.y, tile.x], tiles, options);
            if (this.#controllers.delete(job)) {
                job.finish(data, null, type);
            }
        } catch (error) {
            if (this.#controllers.delete(job)) {
                this.failed.set(tile, error.message);
                job.fail(error.message, null);
            }
        }
    }

    #drop(job) {
        const controller = this.#controllers.get(job);
        this.#controllers.delete(job);
        controller?.abort();
    }

    keepOnly(isWanted) {
        for (const job of [...this.#controllers.keys()].filter(({ tile }) => !isWanted(tile))) {
            this.#drop(job);
            window.clearTimeout(job.jobId); // job.fail would mark its tile as one that does not exist
            job.jobId = null;
            job.tile.loading = false;
        }
    }

    abort(job) {
        this.#drop(job);
    }

    retry() {
        for (const tile of this.failed.keys()) {
            tile.exists = true;
        }
        this.failed.clear();
    }
}

/** Options of an OpenSeadragon.TileSource whose image coordinates are pixels of level 0. */
export function sourceOf(fit, tiers, tiles, jobs) {
    const [height, width] = fit.size;
    const keyOf = (level, x, y) => `fit/${level}/${y}/${x}`;
    return {
        width,
        height,
        minLevel: 0,
        maxLevel: tiers.length - 1,
        getLevelScale: (level) => tiers[level].scale,
        getTileWidth: (level) => tiers[level].tile[1],
        getTileHeight: (level) => tiers[level].tile[0],
        getClosestLevel: () => 0,
        getNumTiles: (level) => {
            const [rows, columns] = tilesAlong(tiers[level]);
            return new OpenSeadragon.Point(columns, rows);
        },
        getTileBounds: (level, x, y, isSource) => {
            const [[top, bottom], [left, right]] = placeOf(tiers[level], [y, x]);
            if (isSource) {
                return new OpenSeadragon.Rect(0, 0, right - left, bottom - top);
            }
            const scale = 1 / (tiers[level].scale * width);
            return new OpenSeadragon.Rect(left * scale, top * scale, (right - left) * scale, (bottom - top) * scale);
        },
        getTileUrl: keyOf,
        getTileHashKey: keyOf,
        hasTransparency: () => fit.hasAlpha,
        downloadTileStart: (job) => void jobs.start(job, tiers[job.tile.level], tiles),
        downloadTileAbort: (job) => jobs.abort(job),
    };
}
