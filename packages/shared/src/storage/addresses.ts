/**
 * Which addresses may be connected to when a stranger names the host: public ones, and those of networks that the operator
 * allows. Everything else could be a service that trusts whoever reaches it.
 */
import { lookup } from "node:dns/promises";
import { isIP, type LookupFunction } from "node:net";
import ipaddr from "ipaddr.js";

export type Network = [ipaddr.IPv4 | ipaddr.IPv6, number];

/** The only part of IPv6 from which public addresses are given out. The forms that wrap an IPv4 address are outside, or ranges of their own. */
const GLOBAL_IPV6 = ipaddr.parseCIDR("2000::/3");
/** What ipaddr.js takes for ordinary: Azure's host services (metadata, DNS), and the protocols' own addresses (RFC 2928). */
const NOT_PUBLIC = ["168.63.129.16/32", "2001::/23"].map(parseNetwork);

/** Throws for what is not CIDR notation. */
export function parseNetwork(text: string): Network {
  return ipaddr.parseCIDR(text);
}

/** Whether `address`, IPv4 or IPv6 without brackets, is public or lies in one of `networks`. */
export function mayConnect(address: string, networks: readonly Network[]): boolean {
  if (!ipaddr.isValid(address)) return false;
  const parsed = ipaddr.parse(address);
  const isIn = (network: Network) => network[0].kind() === parsed.kind() && parsed.match(network);
  if (networks.some(isIn)) return true;
  if (parsed.range() !== "unicast" || NOT_PUBLIC.some(isIn)) return false;
  return parsed.kind() === "ipv4" || isIn(GLOBAL_IPV6);
}

/**
 * Of a host as a URL has it: false for an address that may not be connected to. A connection to an address looks nothing up,
 * so that addresses are judged here (URL writes 0x7f.1 and 2130706433 as 127.0.0.1), and names by `checkedLookup`.
 */
export function mayName(host: string, networks: readonly Network[]): boolean {
  const literal = host.replace(/^\[|\]$/g, "");
  return isIP(literal) === 0 || mayConnect(literal, networks);
}

export type Resolve = (host: string) => Promise<{ address: string; family: number }[]>;
const bySystem: Resolve = (host) => lookup(host, { all: true });

/**
 * Gives a connection only addresses that it may connect to, so that no later answer of the resolver can stand in their
 * place. `refuse` makes the error of a host that has none.
 */
export function checkedLookup(
  networks: readonly Network[],
  refuse: (host: string) => Error = (host) => new Error(notPublic(host)),
  resolve: Resolve = bySystem,
): LookupFunction {
  return (host, options, callback) => {
    const allowed = resolve(host).then((found) => {
      const fit = found.filter(({ address }) => mayConnect(address, networks));
      if (fit.length === 0) throw refuse(host);
      return fit;
    });
    allowed.then(
      (all) => (options.all ? callback(null, all) : callback(null, all[0]!.address, all[0]!.family)),
      (error: NodeJS.ErrnoException) => callback(error, []),
    );
  };
}

/** The address itself isn't told: a stranger need not learn what the network inside is like. */
export const notPublic = (host: string): string => `the host ${host} has no address that is public`;
