const REST = 250; // milliseconds without a change before the address is written

/**
 * Keeps the page's address and a view in step.
 *
 * read() gives the state of the view; show(state) shows one: when the page is loaded and when the hash changes.
 * parse(hash) and format(state) are the states as the address has them.
 * Returns { hash(), changed(), close() }: changed() is to be called whenever the view may have changed.
 */
export function linkTo({ read, show, parse, format }) {
    let timer = null;
    const hash = () => format(read());
    const save = () => {
        if (hash() !== window.location.hash) {
            window.history.replaceState(window.history.state, "", hash());
        }
    };
    const load = ({ newURL }) => show(parse(new URL(newURL).hash)); // the address itself may have been saved over since
    window.addEventListener("hashchange", load);
    show(parse(window.location.hash));
    return {
        hash,
        changed() {
            clearTimeout(timer);
            timer = setTimeout(save, REST);
        },
        close() {
            clearTimeout(timer);
            window.removeEventListener("hashchange", load);
        },
    };
}
