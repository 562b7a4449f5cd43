/** Which hosts on the web may be asked: the operator's list, and of those only public addresses, or ones of allowed networks. */
import type { LookupFunction } from "node:net";
import { CapfleetError } from "../contract/errors.ts";
import { checkedLookup, mayName, type Network, notPublic, parseNetwork, type Resolve } from "./addresses.ts";
import { parseHttps } from "./uri.ts";

export interface GuardSettings {
  /** `*`, names and `*.name`; none: no host at all. */
  hosts: readonly string[];
  /** CIDR: what may be connected to although it is not public. */
  networks: readonly string[];
  /** The resolver; by default the system's. */
  resolve?: Resolve;
}

export class HttpsGuard {
  /** Whether any host is allowed. */
  readonly isOpen: boolean;
  readonly #hosts: readonly string[];
  readonly #networks: Network[];
  /** The connection's: it looks names up anew for each. */
  readonly lookup: LookupFunction;

  constructor({ hosts, networks, resolve }: GuardSettings) {
    this.isOpen = hosts.length > 0;
    this.#hosts = hosts;
    this.#networks = networks.map(parseNetwork);
    this.lookup = checkedLookup(this.#networks, forbidden, resolve);
  }

  /** A URL whose host may be asked; names are looked up by the connection. Throws INVALID_URI, IMAGE_HTTPS_FORBIDDEN. */
  check(text: string): URL {
    const url = parseHttps(text);
    const host = url.hostname.replace(/\.$/, "");
    const isListed = this.#hosts.some(
      (rule) => rule === "*" || (rule.startsWith("*.") ? host.endsWith(rule.slice(1)) : host === rule),
    );
    if (!isListed)
      throw new CapfleetError("IMAGE_HTTPS_FORBIDDEN", `the host ${host} is not among CAPFLEET_HTTPS_HOSTS`);
    if (!mayName(host, this.#networks)) throw forbidden(host);
    return url;
  }

  /** Where `location`, of an answer from `from`, leads to. Throws IMAGE_HTTPS_FORBIDDEN. */
  follow(location: string, from: URL): URL {
    const to = URL.parse(location, from.href);
    if (to?.protocol === "https:" && to.username === "" && to.password === "") return this.check(to.href);
    const why = to === null ? "no URL" : to.protocol !== "https:" ? `${to.protocol}//` : "a URL with credentials";
    throw new CapfleetError("IMAGE_HTTPS_FORBIDDEN", `${from.host} redirects to ${why}`);
  }
}

const forbidden = (host: string) => new CapfleetError("IMAGE_HTTPS_FORBIDDEN", notPublic(host));
