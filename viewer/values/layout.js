const SPACE_BETWEEN = 8; // pixels between the panes and what floats
const WIDE = 2.4; // times its height: then the four panes stand side by side

/** Puts an element where nothing floats over it: beside the tools or above them, below the title, left of the panel. */
export function arrange(element, { tools, panel, readout }) {
    const room = { left: 0, top: 0, right: window.innerWidth, bottom: window.innerHeight };
    const title = document.getElementById("title").getBoundingClientRect();
    const [ofTools, ofPanel, ofReadout] = [tools, panel, readout].map((one) => one.getBoundingClientRect());
    room.top = title.bottom;
    if (ofTools.height > ofTools.width) room.left = ofTools.right;
    else room.bottom = Math.min(room.bottom, ofTools.top);
    if (ofReadout.height) room.bottom = Math.min(room.bottom, ofReadout.top);
    const isSheet = ofPanel.width >= window.innerWidth;
    const isOpen = document.getElementById("fold").getAttribute("aria-expanded") === "true";
    if (isSheet) room.bottom = Math.min(room.bottom, ofPanel.top);
    else if (isOpen) room.right = ofPanel.left;
    const [left, top] = [room.left + SPACE_BETWEEN, room.top + SPACE_BETWEEN];
    const [width, height] = [room.right - SPACE_BETWEEN - left, room.bottom - SPACE_BETWEEN - top];
    Object.assign(element.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    element.classList.toggle("wide", width > WIDE * height);
}
