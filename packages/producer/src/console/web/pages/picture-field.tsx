/** Where a picture is dropped, pasted or chosen. */
import { useEffect, useRef, useState } from "preact/hooks";
import { Icon } from "../parts/icons.tsx";

const MAX_BYTES = 10 * 1024 * 1024;
const TYPES = "image/jpeg,image/png,image/webp,image/gif,image/tiff,image/avif";

export function PictureField({ picture, onPicture }: { picture: File | null; onPicture(file: File): void }) {
  const [isOver, setOver] = useState(false);
  const [wrong, setWrong] = useState<string | null>(null);
  const take = (file: File | null | undefined) => {
    if (!file) return setWrong("That is no file. Drop a picture from a folder, or choose one.");
    if (file.size > MAX_BYTES)
      return setWrong("The picture is larger than 10 MiB, which is what a request may bring along.");
    setWrong(null);
    onPicture(file);
  };
  const latest = useRef(take);
  latest.current = take;
  useEffect(() => {
    const pasted = (event: ClipboardEvent) => {
      const file = event.clipboardData?.files[0];
      if (file?.type.startsWith("image/")) latest.current(file);
    };
    window.addEventListener("paste", pasted);
    return () => window.removeEventListener("paste", pasted);
  }, []);
  return (
    <div class="field">
      <label
        class={isOver ? "drop over" : "drop"}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={(event) => {
          event.preventDefault();
          setOver(false);
          take(event.dataTransfer?.files[0]);
        }}
      >
        <input
          type="file"
          name="image"
          accept={TYPES}
          aria-describedby="picture-help"
          onChange={(event) => event.currentTarget.files?.length && take(event.currentTarget.files[0])}
        />
        {picture ? <Preview file={picture} /> : <Icon name="picture" />}
        <span>{picture ? "Another picture" : "Drop a picture here, or choose one"}</span>
      </label>
      <div id="picture-help" class="help">
        {wrong && (
          <p class="wrong-text" role="alert">
            {wrong}
          </p>
        )}
        <p>JPEG, PNG, WebP, GIF, TIFF or AVIF, up to 10 MiB; pasting one works as well.</p>
      </div>
    </div>
  );
}

function Preview({ file }: { file: File }) {
  const [source, setSource] = useState<string | null>(null);
  const [isShown, setShown] = useState(true);
  useEffect(() => {
    const url = URL.createObjectURL(file);
    setSource(url);
    setShown(true);
    return () => URL.revokeObjectURL(url);
  }, [file]);
  // A browser may not know a format that workers do.
  if (!isShown || !source) return <bdi class="file-name">{file.name}</bdi>;
  return <img src={source} alt={`The chosen picture, ${file.name}`} onError={() => setShown(false)} />;
}
