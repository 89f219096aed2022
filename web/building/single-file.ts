import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import type { Plugin, Rolldown } from "vite";

/**
 * Puts scripts and styles into the page itself and writes it to `target`: the page is served from a Python package,
 * by a process that knows nothing of assets.
 */
export function singleFile(target: string, stamp: () => string): Plugin {
  return {
    name: "wakeline-single-file",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const page = bundle["index.html"];
      if (page?.type !== "asset") throw new Error("the build made no index.html");
      const html = inlined(String(page.source), bundle).replace(
        "</title>",
        `</title>\n    <meta name="wakeline-source" content="${stamp()}">`,
      );
      page.source = html;
      mkdirSync(dirname(target), { recursive: true });
      writeFileSync(target, html);
    },
  };
}

function inlined(html: string, bundle: Rolldown.OutputBundle): string {
  const take = (path: string): Rolldown.OutputAsset | Rolldown.OutputChunk => {
    const name = path.replace(/^\.?\//, "");
    const file = bundle[name];
    if (!file) throw new Error(`the page refers to ${path}, which is not in the build`);
    delete bundle[name];
    return file;
  };
  const page = html
    .replace(/<script type="module"[^>]* src="([^"]+)"><\/script>/g, (_tag, path: string) => {
      const file = take(path);
      // Parts that are loaded on demand are in the page; vite leaves a mark where it would name their files.
      const code = (file.type === "chunk" ? file.code : String(file.source)).replaceAll("__VITE_PRELOAD__", "void 0");
      return `<script type="module">${code.trim().replaceAll("</script", "<\\/script")}</script>`;
    })
    .replace(/<link rel="stylesheet"[^>]* href="([^"]+)">/g, (_tag, path: string) => {
      const file = take(path);
      return `<style>${file.type === "asset" ? String(file.source).trim() : ""}</style>`;
    });
  const left = Object.keys(bundle).filter((name) => name !== "index.html");
  if (left.length > 0) throw new Error(`not inlined: ${left.join(", ")}`);
  return page;
}
