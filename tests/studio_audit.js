// What axe leaves open: contrast (WCAG 2 AA) of all that is written, in pictures too, and whether the window is wide enough.
() => {
    const found = [];
    const seen = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
    const short = (element) => element.outerHTML.slice(0, 120);
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
