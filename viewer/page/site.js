/** Where the page finds its parts: beside it on a server or, where all is in one page, in elements of that page. */

/**
 * What the server or the exporter wrote into the page.
 *
 * @returns { name, fit, original, iiif }: addresses relative to the page; each is null, or not there, where it is not
 *     known. An address of a fit may be given as ?fit=
 */
export function siteDescription() {
    const site = JSON.parse(document.getElementById("site")?.textContent || "{}");
    return { ...site, fit: site.fit ?? new URLSearchParams(location.search).get("fit") };
}

/** The bytes of an element that holds some as base64, or null where the page has none: "fit" of an exported one. */
export function embeddedBytes(id) {
    const element = document.getElementById(id);
    return element && Uint8Array.from(atob(element.textContent.trim()), (letter) => letter.charCodeAt(0));
}

/** A file of the viewer, an ArrayBuffer. */
export async function resource(name) {
    const embedded = embeddedBytes(name);
    if (embedded) return embedded.buffer;
    const response = await fetch(new URL(name, document.baseURI));
    if (!response.ok) throw new Error(`${name} of the viewer is not on the server (${response.status})`);
    return response.arrayBuffer();
}

/** A worker that runs worker.js. */
export function newWorker() {
    const source = document.getElementById("worker.js");
    if (!source) return new Worker(new URL("worker.js", document.baseURI), { type: "module" });
    return new Worker(URL.createObjectURL(new Blob([source.textContent], { type: "text/javascript" })));
}
