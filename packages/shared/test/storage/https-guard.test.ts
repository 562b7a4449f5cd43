/** Which hosts and addresses may be asked. Every refusal here is one that a request for it would meet before it is sent. */
import { expect, test } from "vitest";
import { mayConnect, parseNetwork } from "../../src/storage/addresses.ts";
import { HttpsGuard } from "../../src/storage/https-guard.ts";

test.each([
  [
    "public",
    ["1.1.1.1", "93.184.216.34", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00::1"],
    true,
  ],
  ["private", ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fc00::1", "fec0::1"], false],
  ["loopback", ["127.0.0.1", "127.255.255.255", "::1"], false],
  ["link-local", ["169.254.0.1", "fe80::1", "fe80::1%eth0", "febf::1"], false],
  [
    "metadata",
    ["169.254.169.254", "169.254.170.2", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"],
    false,
  ],
  ["carrier-grade NAT", ["100.64.0.1", "100.127.255.255"], false],
  ["multicast", ["224.0.0.1", "239.255.255.255", "ff02::1"], false],
  [
    "nobody's",
    ["0.0.0.0", "0.1.2.3", "::", "255.255.255.255", "240.0.0.1", "198.18.0.1", "192.0.2.1", "2001:db8::1"],
    false,
  ],
  ["of documentation and protocols", ["3fff::1", "2001:1::1", "2001:10::1", "2001:20::1", "100::1", "5f00::1"], false],
  ["IPv4 in IPv6: mapped", ["::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:1.1.1.1"], false],
  ["compatible", ["::127.0.0.1", "::7f00:1", "::101:101"], false],
  ["translated", ["::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::1.1.1.1", "64:ff9b:1::a00:1"], false],
  ["6to4", ["2002:7f00:1::", "2002:101:101::1"], false],
  ["Teredo", ["2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"], false],
  ["no addresses", ["", "localhost", "1.1.1.1.1", "[::1]"], false],
])("%s: %j → %s", (_, addresses, expected) => {
  for (const address of addresses) expect(mayConnect(address, []), address).toBe(expected);
});

test("an allowed network allows its own addresses, in their own form, and nothing else", () => {
  const networks = ["10.1.0.0/16", "fd00:1::/64"].map(parseNetwork);
  for (const address of ["10.1.0.1", "10.1.255.255", "fd00:1::9", "1.1.1.1"])
    expect(mayConnect(address, networks), address).toBe(true);
  for (const address of ["10.2.0.1", "fd00:2::9", "::ffff:10.1.0.1", "64:ff9b::a01:1"])
    expect(mayConnect(address, networks), address).toBe(false);
});

test.each([
  [[], "https://images.example.com/", false],
  [["images.example.com"], "https://images.example.com/", true],
  [["images.example.com"], "https://IMAGES.example.com.:8443/", true],
  [["images.example.com"], "https://example.com/", false],
  [["images.example.com"], "https://ximages.example.com/", false],
  [["images.example.com"], "https://images.example.com.evil.org/", false],
  [["*.example.com"], "https://a.b.example.com/", true],
  [["*.example.com"], "https://example.com/", false],
  [["*.example.com"], "https://evilexample.com/", false],
  [["*"], "https://anything.example.org/", true],
  [["*"], "https://1.1.1.1/", true],
  [["*"], "https://[2606:4700::1111]/", true],
  [["1.1.1.1"], "https://1.0.0.1/", false],
])("hosts %j: %s → %s", (hosts, url, expected) => {
  const check = () => new HttpsGuard({ hosts, networks: [] }).check(url);
  if (expected) expect(check().href).toContain("https://");
  else expect(check).toThrow(expect.objectContaining({ code: "IMAGE_HTTPS_FORBIDDEN" }));
});

test.each([
  "https://127.0.0.1/",
  "https://127.1/",
  "https://2130706433/",
  "https://017700000001/",
  "https://0x7f000001/",
  "https://0x7f.0.0.1/",
  "https://0177.0.0.1/",
  "https://127.0.0.1./",
  "https://①②⑦.0.0.1/",
  "https://0/",
  "https://169.254.169.254/latest/meta-data/",
  "https://[::1]/",
  "https://[::ffff:127.0.0.1]/",
  "https://[::127.0.0.1]/",
  "https://[64:ff9b::7f00:1]/",
  "https://[fd00:ec2::254]/",
])("%s is refused where every host is allowed, and behind a redirect", (url) => {
  const guard = new HttpsGuard({ hosts: ["*"], networks: [] });
  const refused = expect.objectContaining({ code: "IMAGE_HTTPS_FORBIDDEN", scope: "row" });
  expect(() => guard.check(url)).toThrow(refused);
  expect(() => guard.follow(url, new URL("https://example.com/a"))).toThrow(refused);
});

test("redirects: relative ones, and to what https:// and the list allow", () => {
  const guard = new HttpsGuard({ hosts: ["example.com"], networks: [] });
  const from = new URL("https://example.com/a/b");
  expect(guard.follow("../c?d#e", from).href).toBe("https://example.com/c?d");
  for (const location of ["http://example.com/", "//evil.org/", "https://me:pw@example.com/", "file:///x", "https://"])
    expect(() => guard.follow(location, from)).toThrow(expect.objectContaining({ code: "IMAGE_HTTPS_FORBIDDEN" }));
});
