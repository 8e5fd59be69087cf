"""What an accessibility checker looks for, as two scripts that answer with the list of what they found wrong.

NAMES: everything that can be operated has a name, roles fit, ids are unique. CONTRAST: text against the ground it really
stands on (transparent layers mixed together) reaches WCAG AA; what is disabled or hidden is left out, as the standard does.
"""

NAMES = """() => {
    const visible = (node) => node.getClientRects().length > 0 && getComputedStyle(node).visibility !== "hidden";
    const text = (id) => document.getElementById(id)?.textContent ?? "";
    const name = (node) => (node.getAttribute("aria-labelledby") ?? "").split(" ").map(text).join(" ").trim()
        || node.getAttribute("aria-label") || Array.from(node.labels ?? [], (label) => label.textContent).join(" ").trim()
        || node.textContent.trim() || node.title;
    const found = [];
    const operated = "a[href], button, input, select, textarea, [role=listbox], [role=option], [role=img], [role=region], dialog";
    for (const node of document.querySelectorAll(operated)) {
        if (visible(node) && !name(node)) found.push(`no name: ${node.outerHTML.slice(0, 120)}`);
    }
    for (const node of document.querySelectorAll("[aria-controls], [aria-labelledby], [aria-describedby], [aria-activedescendant]")) {
        for (const attribute of ["aria-controls", "aria-labelledby", "aria-describedby", "aria-activedescendant"]) {
            for (const id of (node.getAttribute(attribute) ?? "").split(" ").filter(Boolean)) {
                if (!document.getElementById(id)) found.push(`${attribute} names nothing: ${id}`);
            }
        }
    }
    const ids = Array.from(document.querySelectorAll("[id]"), ({ id }) => id);
    for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) found.push(`id twice: ${id}`);
    if (document.querySelectorAll("h1").length !== 1) found.push("not exactly one h1");
    if (!document.documentElement.lang) found.push("no language");
    for (const option of document.querySelectorAll("[role=option]")) {
        if (option.parentElement.getAttribute("role") !== "listbox") found.push("an option outside a listbox");
    }
    for (const node of document.querySelectorAll("button, a[href], input, select")) {
        const box = node.getBoundingClientRect();
        const hidden = !visible(node) || getComputedStyle(node).opacity === "0" || node.matches(".skip, .leaflet-control-attribution a");
        if (!hidden && Math.min(box.width, box.height) < 16) found.push(`too small to hit: ${node.outerHTML.slice(0, 120)}`);
    }
    return found;
}"""

CONTRAST = """() => {
    const parse = (colour) => (colour.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
    const over = ([r, g, b, a = 1], ground) => [r, g, b].map((part, i) => part * a + ground[i] * (1 - a));
    const light = (colour) => colour.map((part) => part / 255)
        .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
        .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
    const groundOf = (node) => {
        const layers = [];
        for (let at = node; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
        return layers.reduce((ground, layer) => over(layer, ground), [255, 255, 255]);
    };
    const skipped = (node) => node.closest("[aria-disabled=true], :disabled, .hidden-words, .skip, .emoji, [hidden], noscript, option");
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let leaf = walker.nextNode(); leaf; leaf = walker.nextNode()) {
        const node = leaf.parentElement;
        const style = getComputedStyle(node);
        if (!leaf.data.trim() || skipped(node) || node.getClientRects().length === 0 || style.visibility === "hidden") continue;
        const ground = groundOf(node);
        const [a, b] = [light(over(parse(style.color), ground)), light(ground)];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
        const words = `${ratio.toFixed(2)} for "${leaf.data.trim().slice(0, 40)}"`;
        if (ratio < (large ? 3 : 4.5)) found.push(`${words} (${style.color} on ${ground.map(Math.round)})`);
    }
    return found;
}"""
