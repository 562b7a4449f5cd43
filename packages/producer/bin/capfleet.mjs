#!/usr/bin/env node
import { main } from "../../../scripts/node24.mjs";

main(new URL("../src/cli/main.ts", import.meta.url));
