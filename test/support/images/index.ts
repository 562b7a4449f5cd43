export { type HostileImage, hostileImages } from "./hostile.ts";
export { smallJpegs } from "./small.ts";
