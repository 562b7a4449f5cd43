/** `capfleet keys`: who may use the API, and for what. */
import { createKey, listKeys, type NewKey, readKey, revokeKey } from "../keys/api-key.ts";
import type { Context } from "./context.ts";

/** The key goes to stdout, alone; it can't be shown again. */
export async function keysCreate(asked: NewKey, { state }: Context): Promise<void> {
  const { id, key } = await createKey(asked, state);
  process.stderr.write(`key ${id}; it is shown this once:\n`);
  process.stdout.write(`${key}\n`);
}

export async function keysList(json: boolean, { state, config }: Context): Promise<void> {
  let found = 0;
  for await (const { id } of listKeys(state)) {
    const { hash: _, ...key } = await readKey(id, state);
    found += 1;
    const { name, scope, read, write, created, revoked } = key;
    const line = [id, scope, name, `created ${created}`, ...(revoked ? [`revoked ${revoked}`] : [])].join("  ");
    const prefixes = [...read.map((uri) => `  reads   ${uri}`), ...write.map((uri) => `  writes  ${uri}`)];
    process.stdout.write(json ? `${JSON.stringify(key)}\n` : `${[line, ...prefixes].join("\n")}\n`);
  }
  if (found === 0 && !json) process.stderr.write(`no keys in ${config.state}\n`);
}

export async function keysRevoke(id: string, { state }: Context): Promise<void> {
  await revokeKey(id, state);
  process.stdout.write(`revoked ${id}; producers take it no longer than a few seconds\n`);
}
