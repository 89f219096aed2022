/** The inspector: one page that shows what a gateway has, by the public API alone. */

import "../../shared/page.css";
import "./style/base.css";
import "./style/frame.css";
import "uplot/dist/uPlot.min.css";
import "./style/gateway.css";
import "./style/session.css";
import "./style/event.css";
import "./style/sessions.css";
import { render } from "preact";
import { App } from "./app.tsx";
import { begin } from "./gateway.ts";

render(<App />, document.body);
void begin();
