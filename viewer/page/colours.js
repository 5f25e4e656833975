const COLOURS = [ // Okabe and Ito's; one a level, the finest first
    [213, 94, 0], [0, 114, 178], [0, 158, 115], [240, 228, 66], [204, 121, 167], [86, 180, 233], [230, 159, 0],
];

/** Red, green and blue, 0 to 255, of the blocks of a level. */
export function primariesOf(index) {
    return COLOURS[index % COLOURS.length];
}

/** The colour of the blocks of a level, for CSS. */
export function colourOf(index, alpha = 1) {
    return `rgb(${primariesOf(index).join(" ")} / ${alpha})`;
}
