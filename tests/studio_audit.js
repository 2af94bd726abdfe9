// What a page must keep to so that everybody can use it: names, references, headings, contrast (WCAG 2 AA), width.
() => {
    const found = [];
    const seen = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
    const name = (element) => (element.getAttribute("aria-label")
        ?? element.getAttribute("aria-labelledby")?.split(" ").map((id) => document.getElementById(id)?.textContent).join(" ")
        ?? ([...(element.labels ?? [])].map((label) => label.textContent).join(" ") || element.textContent)).trim();
    const short = (element) => element.outerHTML.slice(0, 120);
    for (const element of document.querySelectorAll("button, input, select, textarea, a[href], [role=slider], summary")) {
        if (seen(element) && name(element) === "") found.push(`no name: ${short(element)}`);
    }
    for (const element of document.querySelectorAll("[aria-labelledby], [aria-describedby], label[for]")) {
        for (const key of ["aria-labelledby", "aria-describedby", "for"]) {
            for (const id of (element.getAttribute(key) ?? "").split(" ").filter(Boolean)) {
                if (!document.getElementById(id)) found.push(`${key} leads nowhere: ${short(element)}`);
            }
        }
    }
    const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
    for (const id of new Set(ids.filter((id, k) => ids.indexOf(id) !== k))) found.push(`twice: #${id}`);
    const levels = [...document.querySelectorAll("h1, h2, h3, h4")].filter(seen).map((element) => Number(element.tagName[1]));
    levels.forEach((level, k) => k > 0 && level > levels[k - 1] + 1 && found.push(`a heading of level ${level} after ${levels[k - 1]}`));
    if (document.documentElement.lang === "") found.push("no language");
    if (document.querySelectorAll("main").length !== 1) found.push("not one main");
    if (document.documentElement.scrollWidth > innerWidth) found.push(`wider than the window: ${document.documentElement.scrollWidth}`);

    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const colour = (text) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = text;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = (front, back) => [0, 1, 2].map((k) => front[k] * front[3] + back[k] * (1 - front[3])).concat(1);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
    const ground = (element) => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) layers.push(colour(getComputedStyle(at).backgroundColor));
        return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
    };
    for (const element of document.querySelectorAll("body *:not(script):not(option)")) {
        const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim() !== "");
        const off = element.closest("[disabled], [aria-disabled=true], [inert], .visually-hidden");
        if (!text || off || !seen(element)) continue;
        const style = getComputedStyle(element);
        const below = ground(element);
        const ink = over(colour(element instanceof SVGElement ? style.fill : style.color), below);
        const [high, low] = [light(ink), light(below)].sort((a, b) => b - a);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) found.push(`contrast ${ratio.toFixed(2)}: ${short(element)}`);
    }
    return found;
}
