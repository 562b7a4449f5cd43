export { compileEngine, ensureEngine } from "./compile.ts";
export { loadEngine } from "./engine.ts";
