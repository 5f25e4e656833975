const KEY = "miner-theme"; // in the browser's storage

const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

function setTheme(theme) {
    document.documentElement.dataset.theme = theme;
}

function storedTheme() {
    try {
        return window.localStorage.getItem(KEY);
    } catch {
        return null; // storage may be forbidden
    }
}

/** The theme that was chosen on this page before, or the system's, which is followed until one is chosen. */
export function startTheme() {
    const follow = () => setTheme(storedTheme() ?? (prefersDark.matches ? "dark" : "light"));
    prefersDark.addEventListener("change", follow);
    follow();
}

/** Dark if it was light, light if it was dark, or the one that is named. */
export function switchTheme(theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark") {
    setTheme(theme);
    try {
        window.localStorage.setItem(KEY, theme);
    } catch {
        // it holds until the page is closed
    }
}
