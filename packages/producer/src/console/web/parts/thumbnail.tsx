/** The picture of a row. It is asked for when it comes near the window, with the reader's key. */
import { useEffect, useRef, useState } from "preact/hooks";
import { file } from "../api.ts";
import { asError } from "../hooks.ts";
import { Icon } from "./icons.tsx";

const WHY: Record<string, string> = {
  LOCATION_FORBIDDEN: "Your key may not see this picture",
  ROW_NOT_FOUND: "No picture",
  IMAGE_NOT_FOUND: "The picture is gone",
  IMAGE_CHANGED: "The picture has been replaced",
  IMAGE_EMPTY: "The file is empty",
  IMAGE_TOO_LARGE: "Too large to be shown",
  IMAGE_UNREADABLE: "Can't be shown",
  THUMBNAIL_TIMEOUT: "Took too long",
};

export function Thumbnail({ job, position, size }: { job: string; position: string; size: number }) {
  const frame = useRef<HTMLDivElement>(null);
  const [source, setSource] = useState<string | null>(null);
  const [why, setWhy] = useState<string | null>(null);
  useEffect(() => {
    const gone = new AbortController();
    let url: string | null = null;
    const load = async () => {
      try {
        const path = `/v1/jobs/${job}/thumbnail?position=${position}&size=${size}`;
        url = URL.createObjectURL(await file(path, gone.signal));
        if (gone.signal.aborted) URL.revokeObjectURL(url);
        else setSource(url);
      } catch (thrown) {
        const { code } = asError(thrown);
        if (!gone.signal.aborted) setWhy(WHY[code] ?? code);
      }
    };
    const seen = new IntersectionObserver(
      (entries) => {
        if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
        seen.disconnect();
        void load();
      },
      { rootMargin: "300px" },
    );
    seen.observe(frame.current!);
    return () => {
      gone.abort();
      seen.disconnect();
      if (url) URL.revokeObjectURL(url);
    };
  }, [job, position, size]);
  return (
    <div ref={frame} class="thumbnail">
      {source && <img src={source} alt="" decoding="async" />}
      {why && (
        <p>
          <Icon name="picture" />
          {why}
        </p>
      )}
    </div>
  );
}
