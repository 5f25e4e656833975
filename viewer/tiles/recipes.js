/**
 * What tiles are made of. A recipe is { key, kind, level, number, window, shown, source, needs, chunk }:
 *
 * window: of its values, in pixels; shown: what of that lies in the level
 * source: null, or { level, window, size } of the values that it is made from, beyond whose size the edge repeats
 * needs: the tiles that hold the source, [kind, level, number] each
 *
 * Kinds: "raw", a tile of a level as finer levels build on it; "means", of a level that is not whole, from the next
 * finer one; "enlarged", samples between the pixels; "window", any window, put together.
 */

import { enlargedWindow, parentWindow } from "../file/windows.js";
import { clampedWindow } from "./boxes.js";

/** Of how a level is shown: by itself, or by means of the nearest finer level that is whole, or the finest there is. */
export function shownKind(fit, level) {
    return !fit.levels.get(level).isWhole && fit.levels.get(level - 1)?.isThere ? "means" : "raw";
}

export function keyOf(kind, level, number) {
    return `${kind}/${level}/${number}`;
}

/** Of a tile of a level, of kind "raw" or "means". */
export function tileRecipe(fit, kind, level, number) {
    const chunk = fit.levels.get(level).chunkOf(number);
    const recipe = { key: keyOf(kind, level, number), kind, level, number, shown: chunk.window };
    return kind === "raw" ? rawRecipe(fit, recipe, chunk) : meansRecipe(fit, recipe);
}

function rawRecipe(fit, recipe, chunk) {
    const coarser = fit.levels.get(recipe.level + 1);
    const reach = coarser && parentWindow(chunk.window, coarser.size, fit.levels.get(recipe.level).fill);
    const made = reach ? madeFrom(fit, "raw", coarser, reach, coarser.size) : { source: null, needs: [] };
    return { ...recipe, window: chunk.window, chunk, ...made };
}

/**
 * Means have a pixel more at each far edge: what lies beyond is the pixel at the edge of the level whose pixels are
 * averaged, and not the mean at the edge, which that pixel may be a part of only.
 */
function meansRecipe(fit, recipe) {
    const { size } = fit.levels.get(recipe.level);
    const finer = fit.levels.get(recipe.level - 1);
    const window = recipe.shown.map(([start, stop], axis) => [start, stop + (stop === size[axis] ? 1 : 0)]);
    const kind = shownKind(fit, finer.index);
    const limits = kind === "means" ? finer.size.map((length) => length + 1) : finer.size;
    const twice = window.map((ends) => ends.map((end) => 2 * end));
    return { ...recipe, window, ...madeFrom(fit, kind, finer, twice, limits) };
}

/**
 * Of samples of the finest level, `factor` a pixel along each axis; they are cut into tiles too.
 *
 * @param place [row, column] of the tile
 * @param tileSize samples along each axis
 */
export function enlargedRecipe(fit, factor, place, tileSize) {
    const level = fit.levels.get(fit.finest);
    const window = place.map((at, axis) => [at * tileSize, Math.min((at + 1) * tileSize, level.size[axis] * factor)]);
    const key = `enlarged/${factor}/${tileSize}/${place}`;
    const made = madeFrom(fit, "raw", level, enlargedWindow(window, factor, level.size), level.size);
    return { key, kind: "enlarged", level: level.index, number: null, window, shown: window, factor, ...made };
}

/** Of a window of a level, which may reach beyond its edges; each who asks has values of his own. */
export function windowRecipe(fit, kind, level, window) {
    const here = fit.levels.get(level);
    const made = madeFrom(fit, kind, here, window, here.size);
    return { key: Symbol("window"), kind: "window", level, number: null, window, shown: window, ...made };
}

function madeFrom(fit, kind, level, window, size) {
    const numbers = level.tilesIn(clampedWindow(window, level.size));
    const needs = numbers.map((number) => [kind, level.index, number]);
    return { source: { level: level.index, window, size }, needs };
}
