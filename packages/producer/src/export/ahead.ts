/**
 * Does `work` for each item, for up to `most` items before their turn; what becomes of them comes in the items' order. While
 * `isFull` says so, nothing further is begun. An error comes in its turn as well.
 */
export async function* ahead<Item, Done>(
  items: AsyncIterable<Item> | Iterable<Item>,
  most: number,
  work: (item: Item) => Promise<Done>,
  isFull: () => boolean = () => false,
): AsyncGenerator<Done> {
  const begun: Promise<Done>[] = [];
  for await (const item of items) {
    const done = work(item);
    // Until its turn has come a failure must not count as unhandled.
    done.catch(() => {});
    begun.push(done);
    while (begun.length >= most || (begun.length > 0 && isFull())) yield await begun.shift()!;
  }
  while (begun.length > 0) yield await begun.shift()!;
}
