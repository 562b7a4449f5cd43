/**
 * A network namespace for each process, as root on Linux: partitions are made by pulling a cable out, as it were, so that
 * packets go nowhere and nobody is told.
 */
import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import { promisify } from "node:util";

const run = promisify(execFile);
const ip = (...args: string[]) => run("ip", args);
/** Tells namespaces of several runs on one machine apart, and is short enough for a device's name. */
const PREFIX = `cf${process.pid}`;

export class Namespaces {
  /** Where processes in all of them reach this side. */
  readonly address: string;
  /** By a process's name that of its namespace, which is also that of its cable's end on this side. */
  readonly #cables = new Map<string, string>();

  private constructor(address: string) {
    this.address = address;
  }

  /** One for each name. Throws where the machine does not allow it; nothing is left then. */
  static async create(names: readonly string[]): Promise<Namespaces> {
    // 198.18.0.0/15 is for tests of networks, and nobody's.
    const net = `198.${18 + ((process.pid >> 8) % 2)}.${process.pid % 256}`;
    const made = new Namespaces(`${net}.1`);
    try {
      for (const [i, name] of names.entries()) await made.#lay(name, `${PREFIX}n${i}`, (n) => `${net}.${4 * i + n}`);
    } catch (thrown) {
      await made.remove();
      throw thrown;
    }
    return made;
  }

  /** A cable: `device` on this side, `eth0` on the other. Each has a network of four addresses. */
  async #lay(name: string, device: string, address: (n: number) => string): Promise<void> {
    await ip("netns", "add", device);
    this.#cables.set(name, device);
    await ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", device);
    await ip("addr", "add", `${address(1)}/30`, "dev", device);
    await ip("link", "set", device, "up");
    const inside = ["-n", device];
    await ip(...inside, "addr", "add", `${address(2)}/30`, "dev", "eth0");
    for (const link of ["lo", "eth0"]) await ip(...inside, "link", "set", link, "up");
    await ip(...inside, "route", "add", "default", "via", address(1));
  }

  /** What a command line begins with that runs in there. */
  enter(name: string): string[] {
    return ["ip", "netns", "exec", this.#cables.get(name)!];
  }

  async cut(name: string): Promise<void> {
    await ip("link", "set", this.#cables.get(name)!, "down");
  }

  async mend(name: string): Promise<void> {
    await ip("link", "set", this.#cables.get(name)!, "up");
  }

  /** The cables go with their namespaces. */
  async remove(): Promise<void> {
    const there = await readdir("/run/netns").catch((): string[] => []);
    for (const namespace of this.#cables.values()) if (there.includes(namespace)) await ip("netns", "del", namespace);
    this.#cables.clear();
  }
}
