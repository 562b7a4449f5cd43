/**
 * Which addresses may be connected to when a stranger's manifest names the host: public ones, and those of networks that
 * the operator allows. Everything else could be a service that trusts whoever reaches it.
 */
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
