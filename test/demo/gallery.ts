/** A page of pictures and captions in one file: thumbnails inside, no scripts, nothing fetched. */
import sharp from "sharp";

export interface Pictured {
  id: string;
  name: string;
  /** The image's path. */
  file: string;
  caption: string;
  truth: string;
}

const THUMBNAIL = 240;

export async function galleryPage(rows: readonly Pictured[]): Promise<string> {
  const cards = await Promise.all(rows.map(card));
  const right = rows.filter(({ caption, truth }) => caption === truth).length;
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>capfleet demo</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.4 system-ui, sans-serif; }
  body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
  ul { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1rem; padding: 0; list-style: none; }
  figure { margin: 0; border: 1px solid #8885; border-radius: 0.5rem; overflow: hidden; height: 100%; }
  img { width: 100%; aspect-ratio: 1; object-fit: contain; display: block; background: #8882; }
  figcaption { padding: 0.6rem 0.8rem; }
  small { display: block; opacity: 0.75; }
</style>
<h1>capfleet demo</h1>
<p>${right} of ${rows.length} captions are exactly right.</p>
<ul>
${cards.join("\n")}
</ul>
</html>
`;
}

async function card({ name, file, caption, truth }: Pictured): Promise<string> {
  const jpeg = await sharp(file).resize(THUMBNAIL, THUMBNAIL, { fit: "inside" }).jpeg({ quality: 80 }).toBuffer();
  const verdict = caption === truth ? "exactly right" : `in the picture: ${truth}`;
  return `<li><figure><img alt="${escapeHtml(caption)}" src="data:image/jpeg;base64,${jpeg.toString("base64")}">
<figcaption>${escapeHtml(caption)}<small>${escapeHtml(name)} · ${escapeHtml(verdict)}</small></figcaption></figure></li>`;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
