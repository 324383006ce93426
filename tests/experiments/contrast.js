// Elements with text whose contrast to what is behind it is below 4.5 to 1.
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgb(getComputedStyle(e).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255];
  };
  const hasText = (e) => [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
  const skipped = ".spotname, script, style, option, title, desc"; // the first has an outline of its own
  return [...document.querySelectorAll("body *")].flatMap((e) => {
    if (!hasText(e) || !e.checkVisibility() || e.closest(skipped)) return [];
    const style = getComputedStyle(e), svg = e.ownerSVGElement;
    const two = [light(rgb(svg ? style.fill : style.color)), light(ground(svg ? svg.parentElement : e))];
    const contrast = (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
    return contrast < 4.5 ? [`${e.tagName} ${e.getAttribute("class")} ${contrast.toFixed(2)} ${e.textContent.trim().slice(0, 30)}`] : [];
  });
}
