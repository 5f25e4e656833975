import { FitError, openFit } from "./file/format.js";
import { bytesRanges, fileRanges, httpRanges } from "./file/ranges.js";
import { holdsValues } from "./file/header.js";
import { make } from "./page/controls.js";
import { clearNotice, hush, say, sayInstead } from "./page/messages.js";
import { inBytes } from "./page/readout.js";
import { embeddedBytes, siteDescription } from "./page/site.js";
import { startTheme } from "./page/theme.js";
import { showPicture } from "./picture/picture.js";
import { makePool } from "./tiles/pool.js";
import { Tiles } from "./tiles/tiles.js";
import { showValues } from "./values/values.js";
import { showVolume } from "./volume/volume.js";

const VECTORS = [ // a module that is valid where WebAssembly has vectors of 128 bits
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
];
const PATIENCE = 700; // milliseconds without a word
const CHANNELS = { 1: "grey", 3: "RGB", 4: "RGBA" };

let opened = null; // what is shown: {close()}
let newest = 0; // number of the fit that was asked for last: no other is shown
let building = Promise.resolve(); // pages are built one after the other, in the same elements

function elementsOf() {
    const named = ["view", "tools", "panel", "sections", "readout"];
    return Object.fromEntries(named.map((id) => [id, document.getElementById(id)]));
}

/** Takes away what was shown before. */
function clearPage() {
    opened?.close();
    opened = null;
    window.miner = undefined;
    hush();
    clearNotice();
    const { view, tools, panel, sections, readout } = elementsOf();
    for (const element of [view, tools, sections, readout]) {
        element.replaceChildren();
    }
    panel.hidden = true;
    readout.hidden = true;
    tellTitle("", "");
}

function tellTitle(name, facts) {
    document.getElementById("name").textContent = name;
    document.getElementById("facts").textContent = facts;
    document.title = name ? `${name} · MINER` : "MINER";
}

function factsOf(fit) {
    const channels = (!fit.header.source.spectral && CHANNELS[fit.nChannels]) || `${fit.nChannels} channels`;
    const kind = fit.size.length === 2 ? channels : fit.nChannels === 1 ? "voxels" : `voxels, ${channels}`;
    const size = [...fit.size].reverse().map((n) => n.toLocaleString("en")).join(" × ");
    return `${size} ${kind}, ${inBytes(fit.bytes)}`;
}

/** Says what is missing of a fit: levels that the file should have, or that have not been fitted yet. */
function tellLack({ finest, levels }) {
    const missing = finest === 1 ? "finest level is" : `finest ${finest} levels are`;
    if (finest > 0 && levels.has(0)) {
        say(`The file is cut short: its ${missing} missing.`, { isBad: true });
    } else if (finest > 0) {
        say(`The fit is not finished: its ${missing} still to come.`);
    }
}

/** Shows a fit, in place of what is there. open(): a promise of its ranges; site: its description. */
async function show(open, site) {
    const number = ++newest;
    const patience = setTimeout(() => say("Opening the fit"), PATIENCE);
    const found = await read(open).catch((error) => ({ error }));
    clearTimeout(patience);
    building = building.then(() => number === newest && build(found, site));
    await building;
}

async function read(open) {
    if (!WebAssembly.validate(new Uint8Array(VECTORS))) {
        throw new FitError("This browser has no WebAssembly SIMD, which decoding needs; a newer one has.");
    }
    const ranges = await open();
    return { ranges, fit: await openFit(ranges) };
}

/** What cannot be read leaves what was shown before. */
async function build({ error, ranges, fit }, site) {
    if (error && opened) {
        say(error.message, { isBad: true });
        return;
    }
    let pool = null;
    try {
        clearPage();
        if (error) {
            throw error;
        }
        if (site.isLocal) {
            window.history.replaceState(window.history.state, "", window.location.pathname + window.location.search);
        }
        tellTitle(site.name ?? fit.name.replace(/\.miner$/, ""), factsOf(fit));
        const workers = Number(new URLSearchParams(window.location.search).get("workers")) || null;
        pool = await makePool(workers, fit);
        const tiles = new Tiles(fit, ranges, pool);
        const showAs = fit.size.length === 2 ? showPicture : holdsValues(fit.header) ? showValues : showVolume;
        const page = await showAs(fit, tiles, site, elementsOf());
        opened = { close: () => { page.close(); pool.close(); } };
        window.miner = { fit, tiles, viewer: page.viewer, page, settled: () => page.settled() };
        tellLack(fit);
    } catch (failure) {
        pool?.close();
        if (!(failure instanceof FitError)) {
            console.error(failure);
        }
        sayInstead("This cannot be shown", failure.message, makeChooser());
    }
}

function openLocal(file) {
    return show(async () => fileRanges(file), { isLocal: true });
}

/** A button that lets a file be chosen. */
function makeChooser() {
    const input = make("input", { type: "file", accept: ".miner", hidden: true });
    input.addEventListener("change", () => input.files.length && openLocal(input.files[0]));
    const properties = { type: "button", className: "button", onclick: () => input.click() };
    return make("div", {}, input, make("button", properties, "Choose a file"));
}

function listenToDrops() {
    const isFile = (event) => event.dataTransfer?.types.includes("Files");
    const mark = (isOver) => document.body.classList.toggle("dropping", isOver);
    window.addEventListener("dragover", (event) => {
        if (isFile(event)) {
            event.preventDefault();
            mark(true);
        }
    });
    window.addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
    window.addEventListener("drop", (event) => {
        if (isFile(event)) {
            event.preventDefault();
            mark(false);
            openLocal(event.dataTransfer.files[0]);
        }
    });
}

/** The panel is open where there is room for it. */
function listenToFold() {
    const fold = document.getElementById("fold");
    const set = (isOpen) => fold.setAttribute("aria-expanded", isOpen);
    fold.addEventListener("click", () => set(fold.getAttribute("aria-expanded") !== "true"));
    set(!window.matchMedia("(max-width: 640px), (max-height: 520px)").matches);
}

function addressOf(fit) {
    if (!URL.canParse(fit, document.baseURI)) {
        throw new FitError(`${fit} is no address of a file`);
    }
    return new URL(fit, document.baseURI);
}

async function start() {
    startTheme();
    listenToDrops();
    listenToFold();
    const site = siteDescription();
    const bytes = embeddedBytes("fit");
    if (bytes) {
        await show(async () => bytesRanges(bytes, `${site.name}.miner`), site);
    } else if (site.fit) {
        await show(async () => httpRanges(addressOf(site.fit)), site);
    } else {
        sayInstead("Open a fit", "Choose a .miner file, or drop one here. It is read on this device and goes nowhere.",
            makeChooser());
    }
}

await start();
