import { expect, test } from "vitest";
import { readConfig } from "../src/config.ts";

test("hosts and networks on the web: none unless they are set", () => {
  expect(readConfig({})).toMatchObject({ httpsHosts: [], httpsNetworks: [] });
  expect(readConfig({ CAPFLEET_HTTPS_HOSTS: "", CAPFLEET_HTTPS_NETWORKS: " , " })).toMatchObject({ httpsHosts: [] });
  const set = readConfig({
    CAPFLEET_HTTPS_HOSTS: " Images.example.com, *.cdn.example.com,[2606:4700::1111],",
    CAPFLEET_HTTPS_NETWORKS: "10.1.0.0/16,fd00:1::/64",
  });
  expect(set.httpsHosts).toEqual(["images.example.com", "*.cdn.example.com", "[2606:4700::1111]"]);
  expect(set.httpsNetworks).toEqual(["10.1.0.0/16", "fd00:1::/64"]);
  expect(readConfig({ CAPFLEET_HTTPS_HOSTS: "*" }).httpsHosts).toEqual(["*"]);
});

test.each([
  ["CAPFLEET_HTTPS_HOSTS", "https://example.com"],
  ["CAPFLEET_HTTPS_HOSTS", "example.com:8443"],
  ["CAPFLEET_HTTPS_HOSTS", "example.com/path"],
  ["CAPFLEET_HTTPS_HOSTS", "a.*.example.com"],
  ["CAPFLEET_HTTPS_HOSTS", "a.com b.com"],
  ["CAPFLEET_HTTPS_NETWORKS", "10.0.0.1"],
  ["CAPFLEET_HTTPS_NETWORKS", "10.0.0.0/33"],
  ["CAPFLEET_HTTPS_NETWORKS", "010.0.0.0/8"],
  ["CAPFLEET_HTTPS_NETWORKS", "localhost/8"],
])("%s=%s is refused", (name, value) => {
  expect(() => readConfig({ [name]: value })).toThrow(
    expect.objectContaining({ code: "INVALID_CONFIG", message: expect.stringMatching(`^${name}: must be `) }),
  );
});

test("a drain that is over before a new worker has started is refused", () => {
  expect(readConfig({}).scale).toEqual({ drainSeconds: 1_800, startupSeconds: 180 });
  expect(readConfig({ CAPFLEET_DRAIN_SECONDS: "181" }).scale.drainSeconds).toBe(181);
  expect(() => readConfig({ CAPFLEET_DRAIN_SECONDS: "180" })).toThrow(
    expect.objectContaining({ code: "INVALID_CONFIG", message: expect.stringContaining("CAPFLEET_STARTUP_SECONDS") }),
  );
});
