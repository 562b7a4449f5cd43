#!/usr/bin/env node
import { main } from "../../../scripts/node24.mjs";

main(new URL("../src/main.ts", import.meta.url));
