/** What a reader would see, asked inside of a page: functions that stand alone, to be evaluated there. */

/** What reaches over the window's right edge, other than what scrolls by itself. */
export function widerThanWindow(): string[] {
  const { clientWidth, scrollWidth } = document.documentElement;
  if (scrollWidth <= clientWidth) return [];
  const over = [...document.querySelectorAll("body *")].filter((element) => {
    return element.getBoundingClientRect().right > clientWidth + 1;
  });
  return over.map((element) => `${element.tagName}.${element.className} ${element.textContent?.slice(0, 40)}`);
}

/** Texts whose contrast with what is behind them is below 4.5, WCAG's level AA. */
export function faintTexts(): string[] {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true })!;
  /** Painted over white or black and read back: whatever way a colour is written in, it is three numbers then. */
  const paint = (colors: string[]) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) {
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (rgb: number[]) => {
    const [r, g, b] = rgb.map((value) =>
      value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4,
    );
    return 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;
  };
  const behind = (element: Element) => {
    const colors: string[] = [];
    for (let at: Element | null = element; at; at = at.parentElement)
      colors.unshift(getComputedStyle(at).backgroundColor);
    return colors;
  };
  const faint: string[] = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes]
      .filter(({ nodeType }) => nodeType === Node.TEXT_NODE)
      .map((node) => node.textContent)
      .join("")
      .trim();
    if (text === "" || !element.checkVisibility() || element.closest(":disabled, .skip, noscript, option")) continue;
    const ground = behind(element);
    const [a, b] = [light(paint([...ground, getComputedStyle(element).color])), light(paint(ground))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5)
      faint.push(`${contrast.toFixed(2)} ${element.tagName}.${element.className}: ${text.slice(0, 40)}`);
  }
  return faint;
}
