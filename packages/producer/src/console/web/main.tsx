/** The console: jobs, the fleet, and a model to try. */
import "./style/index.css";
import { render } from "preact";
import { App } from "./app.tsx";

render(<App />, document.getElementById("app")!);
