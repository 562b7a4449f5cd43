/** Which hosts on the web may be asked: the operator's list, and of those only public addresses, or ones of allowed networks. */
import { lookup } from "node:dns/promises";
import { isIP, type LookupFunction } from "node:net";
import { CapfleetError } from "../contract/errors.ts";
import { mayConnect, type Network, parseNetwork } from "./https-address.ts";
import { parseHttps } from "./uri.ts";

export interface GuardSettings {
  /** `*`, names and `*.name`; none: no host at all. */
  hosts: readonly string[];
  /** CIDR: what may be connected to although it is not public. */
  networks: readonly string[];
  /** The resolver; by default the system's. */
  resolve?: (host: string) => Promise<{ address: string; family: number }[]>;
}

export class HttpsGuard {
  /** Whether any host is allowed. */
  readonly isOpen: boolean;
  readonly #hosts: readonly string[];
  readonly #networks: Network[];
  readonly #resolve: NonNullable<GuardSettings["resolve"]>;

  constructor({ hosts, networks, resolve = (host) => lookup(host, { all: true }) }: GuardSettings) {
    this.isOpen = hosts.length > 0;
    this.#hosts = hosts;
    this.#networks = networks.map(parseNetwork);
    this.#resolve = resolve;
  }

  /**
   * A URL whose host may be asked; names are looked up by the connection. A connection to an address looks nothing up, so
   * that addresses are judged here (URL writes 0x7f.1 and 2130706433 as 127.0.0.1). Throws INVALID_URI,
   * IMAGE_HTTPS_FORBIDDEN.
   */
  check(text: string): URL {
    const url = parseHttps(text);
    const host = url.hostname.replace(/\.$/, "");
    const isListed = this.#hosts.some(
      (rule) => rule === "*" || (rule.startsWith("*.") ? host.endsWith(rule.slice(1)) : host === rule),
    );
    if (!isListed)
      throw new CapfleetError("IMAGE_HTTPS_FORBIDDEN", `the host ${host} is not among CAPFLEET_HTTPS_HOSTS`);
    const literal = host.replace(/^\[|\]$/g, "");
    if (isIP(literal) !== 0 && !mayConnect(literal, this.#networks)) throw notPublic(host);
    return url;
  }

  /** Where `location`, of an answer from `from`, leads to. Throws IMAGE_HTTPS_FORBIDDEN. */
  follow(location: string, from: URL): URL {
    const to = URL.parse(location, from.href);
    if (to?.protocol === "https:" && to.username === "" && to.password === "") return this.check(to.href);
    const why = to === null ? "no URL" : to.protocol !== "https:" ? `${to.protocol}//` : "a URL with credentials";
    throw new CapfleetError("IMAGE_HTTPS_FORBIDDEN", `${from.host} redirects to ${why}`);
  }

  /** Gives the connection only what it may connect to, so that no later answer of the resolver can stand in its place. */
  readonly lookup: LookupFunction = (host, options, callback) => {
    const allowed = this.#resolve(host).then((found) => {
      const fit = found.filter(({ address }) => mayConnect(address, this.#networks));
      if (fit.length === 0) throw notPublic(host);
      return fit;
    });
    allowed.then(
      (all) => (options.all ? callback(null, all) : callback(null, all[0]!.address, all[0]!.family)),
      (error: NodeJS.ErrnoException) => callback(error, []),
    );
  };
}

/** The address itself isn't told: who writes manifests need not learn what the network inside is like. */
function notPublic(host: string): CapfleetError {
  return new CapfleetError("IMAGE_HTTPS_FORBIDDEN", `the host ${host} has no address that is public`);
}
