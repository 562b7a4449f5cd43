/** A page of pictures and what was said of them, in one file: thumbnails inside, no scripts, nothing fetched. */
import sharp from "sharp";

export interface Pictured {
  name: string;
  /** The image's path. */
  file: string;
  caption: string;
  question: string;
  answer: string;
  /** A web text, and the probability that it matches. */
  alt: string;
  itm: number;
  truth: { caption: string; answer: string; alt_matches: boolean };
}

const THUMBNAIL = 240;

export async function galleryPage(rows: readonly Pictured[]): Promise<string> {
  const cards = await Promise.all(rows.map(card));
  const right = rows.filter(({ caption, truth }) => caption === truth.caption).length;
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
  p { margin: 0.4rem 0 0; }
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

async function card({ name, file, caption, question, answer, alt, itm, truth }: Pictured): Promise<string> {
  const jpeg = await sharp(file).resize(THUMBNAIL, THUMBNAIL, { fit: "inside" }).jpeg({ quality: 80 }).toBuffer();
  const said = [
    `${escapeHtml(caption)}<small>${escapeHtml(name)} · ${verdict(caption, truth.caption)}</small>`,
    `<p>${escapeHtml(question)} ${escapeHtml(answer)}<small>${verdict(answer, truth.answer)}</small></p>`,
    `<p>“${escapeHtml(alt)}”<small>matches with ${itm.toFixed(3)} · it ${truth.alt_matches ? "does" : "does not"}</small></p>`,
  ];
  return `<li><figure><img alt="${escapeHtml(caption)}" src="data:image/jpeg;base64,${jpeg.toString("base64")}">
<figcaption>${said.join("\n")}</figcaption></figure></li>`;
}

const verdict = (said: string, truth: string) =>
  said === truth ? "exactly right" : `in the picture: ${escapeHtml(truth)}`;

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
