import { defineConfig } from "vite";

// The page and the gateway have one origin, so that CORS needs no settings: the proxy keeps the Host header.
const gateway = process.env.WAKELINE ?? "http://127.0.0.1:7777";

export default defineConfig({
  esbuild: { jsx: "automatic" },
  server: { proxy: { "/v1": { target: gateway, changeOrigin: false } } },
});
