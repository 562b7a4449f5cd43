/** `capfleet serve` without its API, as a process of its own: for tests that start many. */
import { contextOf, producing } from "./crashes.ts";

producing(contextOf(process.env));
